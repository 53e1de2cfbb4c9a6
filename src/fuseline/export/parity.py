"""How far the bundle, as served, is from the ensemble in torch, on real rows.

Shape letters: U units (rows; where words or labels are scored, those), C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from fuseline.errors import NotFiniteError
from fuseline.models.ensemble import Ensemble
from fuseline.progress import Progress
from fuseline.records import Agreement
from fuseline.runtime.predictor import Feeds, Floats, Predictor, Run
from fuseline.runtime.rows import Prepared
from fuseline.tasks.base import Ints

CPU = ("CPUExecutionProvider",)
TORCH_BATCH = 7
"""Batch size on the torch side: unlike any usual one, so that padding and neighbours differ on the two sides."""
OVERFLOW = "look for a member that overflows on that row, and train it with a lower learning_rate"


@dataclass(frozen=True)
class Reference:
    """What the ensemble answers in torch to every row of a prepared split."""

    rows: Prepared
    count: int
    logits_UC: Floats
    classes_U: Ints
    evaluated_UC: Floats
    """What the evaluation of these rows rests on. It sees pictures resized and rounded to grey levels beforehand, a
    bundle resizes them itself."""

    @classmethod
    def of(cls, folder: Path, ensemble: Ensemble, split: Path, evaluated_UC: Floats) -> Reference:
        """Ask the ensemble, by what the bundle in `folder` makes of the rows.

        Raises:
            NotFiniteError: naming the first row of which a number is not finite.
        """
        predictor = Predictor(folder, CPU, public_key=None)
        rows = Prepared.of(split, predictor.bundle)
        count, run, what = len(rows), partial(_run_torch, ensemble), f"torch at batch {TORCH_BATCH}"
        check_finite(evaluated_UC, "the evaluation: probabilities", OVERFLOW)
        logits_UC, probs_UC = answer(predictor, rows, count, TORCH_BATCH, what, run)
        check_finite(logits_UC, f"{what}: logits", OVERFLOW)
        return cls(rows, count, logits_UC, predictor.task.decide(probs_UC), evaluated_UC)

    def compare(self, folder: Path, batch_sizes: Sequence[int]) -> tuple[Agreement, Floats]:
        """Run every row through a bundle's graph, at each batch size.

        Returns:
            How far it is from torch, and its probabilities [U, C].

        Raises:
            NotFiniteError: naming the first row of which a number is not finite.
        """
        predictor = Predictor(folder, CPU, public_key=None)
        decide = predictor.task.decide
        difference, agreement, probs_UC = 0.0, 1.0, self.evaluated_UC
        for size in batch_sizes:
            what = f"{predictor.bundle.variant} graph at batch {size}"
            logits_UC, probs_UC = answer(predictor, self.rows, self.count, size, what)
            check_finite(logits_UC, f"{what}: logits", "those of torch are")
            difference = max(difference, float(np.abs(logits_UC - self.logits_UC).max()))
            agreement = min(agreement, float((decide(probs_UC) == self.classes_U).mean()))
        found = Agreement(
            rows=len(self.logits_UC),
            batch_sizes=list(batch_sizes),
            max_logit_difference=difference,
            relative_logit_difference=difference / (float(np.abs(self.logits_UC).max()) or 1.0),
            argmax_agreement=agreement,
            evaluation_agreement=float((decide(probs_UC) == decide(self.evaluated_UC)).mean()),
        )
        return found, probs_UC


def answer(
    predictor: Predictor, rows: Prepared, count: int, size: int, what: str, run: Run | None = None
) -> tuple[Floats, Floats]:
    """Return logits and probabilities of all units [U, C], rows given in batches of a size."""
    progress, logits, probs = Progress(f"export parity, {what}", count), [], []
    for done, one in enumerate(predictor.answer(rows, size, run), start=1):
        logits.append(np.atleast_2d(one.logits))
        probs.append(np.atleast_2d(one.probabilities))
        progress.at(done)
    return np.concatenate(logits), np.concatenate(probs)


def check_finite(scores_UC: Floats, what: str, more: str) -> None:
    """Refuse scores that are no finite numbers.

    NaN would pass for agreement: `max(0.0, nan)` is 0.0, and argmax takes a NaN for the largest score on both sides.

    Raises:
        NotFiniteError: naming the first row with such a score.
    """
    bad = np.flatnonzero(~np.isfinite(scores_UC).all(1))
    if bad.size:
        raise NotFiniteError(
            f"export parity, {what} are not finite for {bad.size} of {len(scores_UC)} test rows, "
            f"first for row {bad[0]}: {scores_UC[bad[0]].tolist()}; {more}"
        )


def _run_torch(ensemble: Ensemble, feeds: Feeds) -> list[Floats]:
    with torch.inference_mode():
        given = {name: torch.from_numpy(array) for name, array in feeds.items()}
        return [output.numpy() for output in ensemble(**given)]
