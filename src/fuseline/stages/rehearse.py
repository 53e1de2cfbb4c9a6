"""Let the bundle answer golden rows in a clean environment that holds its own requirements alone."""

from __future__ import annotations

import pyarrow.parquet as pq

from fuseline.config import Params
from fuseline.evaluation.predictions import COLUMNS
from fuseline.progress import say
from fuseline.records import write_json
from fuseline.rehearsal.rehearse import rehearse
from fuseline.runtime.bundle import CARD, read_card
from fuseline.runtime.rows import Prepared
from fuseline.stages import entry


def main(params: Params) -> None:
    """build/export, build/prepare, build/evaluate → build/rehearse: rehearsal and metrics .json."""
    bundle = entry.EXPORT / "bundle"
    rows = Prepared.of(entry.PREPARE / "test", read_card(bundle / CARD))
    column = COLUMNS[params.export.system]
    evaluated = pq.read_table(entry.EVALUATE / "predictions.parquet", columns=[column])[column].to_numpy()
    rehearsal = rehearse(bundle, rows, evaluated, params.rehearse.rows)
    folder = entry.fresh(entry.REHEARSE)
    rehearsal.write(folder / "rehearsal.json")
    numbers = ("agreement", "max_difference", "evaluation_agreement", "first_answer_seconds")
    write_json(folder / "metrics.json", {"rehearse": {name: getattr(rehearsal, name) for name in numbers}})
    say(
        f"rehearse: {rehearsal.problem}" if rehearsal.problem is not None
        else f"rehearse: {rehearsal.agreement:.1%} of {rehearsal.rows} golden rows answered as here, with "
        f"{len(rehearsal.installed)} packages installed; first answer after {rehearsal.first_answer_seconds:.1f} s"
    )  # fmt: skip


if __name__ == "__main__":
    entry.run(main)
