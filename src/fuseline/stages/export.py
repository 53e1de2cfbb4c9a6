"""Write the ensemble as a bundle and compare it with torch on the whole test split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from fuseline.config import Params
from fuseline.export.bundle import Contents, write_bundle
from fuseline.export.parity import compare
from fuseline.models.ensemble import Ensemble
from fuseline.progress import say
from fuseline.records import OTHER, Evaluation, System, sha256_of
from fuseline.stages import entry
from fuseline.tasks.base import Task
from fuseline.training.checkpoints import load_ensemble, load_readers, read_combination
from fuseline.training.trainer import set_up

COLUMNS = {"ensemble": "probabilities", "student": "student"}
"""Of the evaluation's predictions."""


def main(params: Params) -> None:
    """build/train, combine, distill, evaluate → build/export: bundle/, parity.json; with a student also beside/."""
    set_up(params.train)
    task, system = entry.task_of(params), params.export.system
    folder = entry.fresh(entry.EXPORT)
    ensemble = write(params, task, system, folder / "bundle")
    if params.distill is not None:
        write(params, task, OTHER[system], folder / "beside")
    predictions = pq.read_table(entry.EVALUATE / "predictions.parquet", columns=[COLUMNS[system]])
    evaluated_UC = np.concatenate(predictions[COLUMNS[system]].to_numpy()).reshape(-1, len(task.classes))
    parity = compare(
        folder / "bundle", ensemble, entry.PREPARE / "test", evaluated_UC, params.export.parity_batch_sizes
    )
    parity.write(folder / "parity.json")
    say(
        f"export: largest logit difference {parity.max_logit_difference:.1e}, "
        f"argmax equal in {parity.argmax_agreement:.1%} of {parity.rows} {task.unit}s, "
        f"as evaluated in {parity.evaluation_agreement:.1%}"
    )


def write(params: Params, task: Task, system: System, folder: Path) -> Ensemble:
    """Write the bundle of the ensemble, or of its student."""
    home, combination, encoders = entry.TRAIN, entry.COMBINE, params.encoders
    if system == "student":
        assert params.distill is not None
        home = combination = entry.DISTILL
        encoders = params.distill.encoders or encoders
    fitted = read_combination(combination)
    ensemble = load_ensemble(home, fitted)
    contents = Contents(
        name=params.publish.name,
        task=task.decided(fitted.decoding),
        members=ensemble.names,
        max_tokens=0 if encoders.text is None else encoders.text.max_length,
        opset=params.export.opset,
        data=sha256_of(entry.DATA / "manifest.json"),
        evaluation=Evaluation.read(entry.EVALUATE / "evaluation.json"),
        system=system,
    )
    write_bundle(folder, contents, ensemble, load_readers(home, ensemble))
    return ensemble


if __name__ == "__main__":
    entry.run(main)
