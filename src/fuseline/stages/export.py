"""Write the ensemble as a bundle and compare it with torch on the whole test split."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq

from fuseline.config import Params
from fuseline.export.bundle import Contents, write_bundle
from fuseline.export.parity import compare
from fuseline.progress import say
from fuseline.records import Combination, Evaluation, sha256_of
from fuseline.stages import entry
from fuseline.training.checkpoints import load_ensemble, load_readers
from fuseline.training.trainer import set_up


def main(params: Params) -> None:
    """build/train, build/combine, build/evaluate → build/export: bundle/, parity.json."""
    set_up(params.train)
    task = entry.task_of(params)
    ensemble = load_ensemble(entry.TRAIN, Combination.read(entry.COMBINE / "combination.json"))
    folder = entry.fresh(entry.EXPORT)
    write_bundle(
        folder / "bundle",
        Contents(
            name=params.publish.name,
            task=task,
            members=ensemble.names,
            max_tokens=0 if params.encoders.text is None else params.encoders.text.max_length,
            opset=params.export.opset,
            data=sha256_of(entry.DATA / "manifest.json"),
            evaluation=Evaluation.read(entry.EVALUATE / "evaluation.json"),
        ),
        ensemble,
        load_readers(entry.TRAIN, ensemble),
    )
    predictions = pq.read_table(entry.EVALUATE / "predictions.parquet", columns=["probabilities"])
    evaluated_UC = np.concatenate(predictions["probabilities"].to_numpy()).reshape(-1, len(task.classes))
    parity = compare(
        folder / "bundle", ensemble, entry.PREPARE / "test", evaluated_UC, params.export.parity_batch_sizes
    )
    parity.write(folder / "parity.json")
    say(
        f"export: largest logit difference {parity.max_logit_difference:.1e}, "
        f"argmax equal in {parity.argmax_agreement:.1%} of {parity.rows} {'words' if task.words else 'rows'}, "
        f"as evaluated in {parity.evaluation_agreement:.1%}"
    )


if __name__ == "__main__":
    entry.run(main)
