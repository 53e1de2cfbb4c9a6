"""How far the bundle, as served, is from the ensemble in torch, on real rows.

Shape letters: U units (rows; where words or labels are scored, those), C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from fuseline.errors import ExportError
from fuseline.models.ensemble import Ensemble
from fuseline.progress import Progress
from fuseline.records import Parity
from fuseline.runtime.predictor import Feeds, Floats, Predictor, Run
from fuseline.runtime.rows import read_parquet
from fuseline.tasks.base import Ints

TORCH_BATCH = 7
"""Batch size on the torch side: unlike any usual one, so that padding and neighbours differ on the two sides."""


def compare(folder: Path, ensemble: Ensemble, split: Path, evaluated_UC: Floats, batch_sizes: Sequence[int]) -> Parity:
    """Run every row of a prepared split through both, the graph at each batch size.

    Args:
        evaluated_UC: the probabilities that the evaluation of these rows rests on. It sees pictures resized and
            rounded to grey levels beforehand, the bundle resizes them itself.

    Raises:
        ExportError: a number on either side is not finite.
    """
    predictor = Predictor(folder, ["CPUExecutionProvider"])
    modalities = predictor.bundle.modalities
    rows = list(read_parquet(split, modalities, predictor.task.wanted(modalities), predictor.several))

    def answer(what: str, size: int, run: Run | None = None) -> tuple[Floats, Ints]:
        """Return logits and classes of all units."""
        progress, logits, probs = Progress(f"export parity, {what}", len(rows)), [], []
        for done, one in enumerate(predictor.answer(rows, size, run), start=1):
            logits.append(np.atleast_2d(one.logits))
            probs.append(np.atleast_2d(one.probabilities))
            progress.at(done)
        return check_finite(np.concatenate(logits), f"{what}: logits"), predictor.task.decide(np.concatenate(probs))

    check_finite(evaluated_UC, "the evaluation: probabilities")
    expected_UC, expected_U = answer(f"torch at batch {TORCH_BATCH}", TORCH_BATCH, partial(_run_torch, ensemble))
    difference, agreement, found_U = 0.0, 1.0, expected_U
    for size in batch_sizes:
        found_UC, found_U = answer(f"graph at batch {size}", size)
        difference = max(difference, float(np.abs(found_UC - expected_UC).max()))
        agreement = min(agreement, float((found_U == expected_U).mean()))
    return Parity(
        rows=len(expected_UC),
        batch_sizes=list(batch_sizes),
        max_logit_difference=difference,
        argmax_agreement=agreement,
        evaluation_agreement=float((found_U == predictor.task.decide(evaluated_UC)).mean()),
    )


def check_finite(scores_UC: Floats, what: str) -> Floats:
    """Return the scores as they are.

    NaN would pass for agreement: `max(0.0, nan)` is 0.0, and argmax takes a NaN for the largest score on both sides.

    Raises:
        ExportError: naming the first row with a score that is not finite.
    """
    bad = np.flatnonzero(~np.isfinite(scores_UC).all(1))
    if bad.size:
        raise ExportError(
            f"export parity, {what} are not finite for {bad.size} of {len(scores_UC)} test rows, "
            f"first for row {bad[0]}: {scores_UC[bad[0]].tolist()}; look for a member that overflows on that row, "
            "and train it with a lower learning_rate"
        )
    return scores_UC


def _run_torch(ensemble: Ensemble, feeds: Feeds) -> list[Floats]:
    with torch.inference_mode():
        given = {name: torch.from_numpy(array) for name, array in feeds.items()}
        return [output.numpy() for output in ensemble(**given)]
