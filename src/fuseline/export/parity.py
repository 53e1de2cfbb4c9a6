"""How far the bundle, as served, is from the ensemble in torch, on real rows.

Shape letters: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fuseline.export.graph import with_absent
from fuseline.inputs import decode_image
from fuseline.models.ensemble import Ensemble
from fuseline.progress import Progress
from fuseline.records import Parity
from fuseline.runtime.predictor import Predictor, Row
from fuseline.runtime.rows import read_parquet

Floats = NDArray[np.float32]


def compare(folder: Path, ensemble: Ensemble, file: Path, batch_sizes: Sequence[int]) -> Parity:
    """Run every row of `file` through both, at each batch size.

    The torch side goes through the rows one by one: padding and neighbours must make no difference.
    """
    rows = list(read_parquet(file))
    predictor = Predictor(folder, ["CPUExecutionProvider"])
    expected_NC = _torch_logits(predictor, ensemble, rows)
    difference, agreement = 0.0, 1.0
    for size in batch_sizes:
        found_NC = np.stack([answer.logits for answer in predictor.predict(rows, size)])
        difference = max(difference, float(np.abs(found_NC - expected_NC).max()))
        agreement = min(agreement, float((found_NC.argmax(1) == expected_NC.argmax(1)).mean()))
    return Parity(
        rows=len(rows), batch_sizes=list(batch_sizes), max_logit_difference=difference, argmax_agreement=agreement
    )


def _torch_logits(predictor: Predictor, ensemble: Ensemble, rows: Sequence[Row]) -> Floats:
    progress, logits = Progress("export parity", len(rows)), []
    with torch.inference_mode():
        for done, row in enumerate(rows, start=1):
            feeds = predictor.feeds([row], [None if row.image is None else decode_image(row.image)])
            given = {name: torch.from_numpy(array) for name, array in feeds.items()}
            logits.append(ensemble(**with_absent(given))[1].numpy())
            progress.at(done)
    return np.concatenate(logits)
