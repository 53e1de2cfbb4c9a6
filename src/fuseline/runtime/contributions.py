"""What each modality of a row adds to its answer: exact Shapley values over the modalities that the row has.

Shape letters: U units of a row, which are one, its words or the labels, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fuseline.runtime.row import Row
from fuseline.runtime.shapley import Coalition, coalitions, shapley

if TYPE_CHECKING:
    from fuseline.runtime.predictor import Answer, Items, Predictor

LEAST = 1e-30
"""Lower probabilities count as this."""


@dataclass(frozen=True)
class Contribution:
    """An answer, and where its confidence comes from; in nats.

    Numbers, where rows are scored; arrays over the words of a text or over the labels, where those are.
    """

    answer: Any
    """As of `predict`."""
    log_probability: Any
    """Of the class that each unit is answered by: the sum of `chance` and what all modalities add."""
    modalities: dict[str, Any]
    """What each adds to it, averaged over all orders in which they could be shown; below 0 it speaks against it."""
    chance: float
    """The logarithm of 1 / classes: what is said where nothing is shown, or not enough to answer at all."""


def contribute(predictor: Predictor, rows: Iterable[Row], batch_size: int) -> Iterator[Contribution]:
    """Explain rows one by one, in order."""
    from fuseline.runtime.predictor import BATCH_BYTES

    waiting: list[tuple[Row, dict[Coalition, Items]]] = []
    taken = questions = 0
    for row in rows:
        items = predictor.read(row)
        waiting.append((row, _hide(predictor, items)))
        questions += len(waiting[-1][1])
        taken += predictor.weigh(items) * len(waiting[-1][1])
        if questions >= batch_size or taken >= BATCH_BYTES:
            yield from _explain(predictor, waiting, batch_size)
            waiting, taken, questions = [], 0, 0
    yield from _explain(predictor, waiting, batch_size)


def _hide(predictor: Predictor, items: Items) -> dict[Coalition, Items]:
    """Return a row as each set of its modalities shows it, those sets apart that cannot be answered."""
    present = [name for name, item in items.items() if item is not None]
    wanted = set(predictor.task.wanted(predictor.bundle.modalities))
    return {
        shown: {name: item if name in shown else None for name, item in items.items()}
        for shown in coalitions(present) if wanted & shown
    }  # fmt: skip


def _explain(
    predictor: Predictor, waiting: list[tuple[Row, dict[Coalition, Items]]], batch_size: int
) -> Iterator[Contribution]:
    asked = [items for _, shown in waiting for items in shown.values()]
    chunks = (asked[start : start + batch_size] for start in range(0, len(asked), batch_size))
    answers = (answer for chunk in chunks for answer in predictor.answer_read(chunk))
    for row, shown in waiting:
        yield _share(predictor, row, {coalition: next(answers) for coalition in shown})


def _share(predictor: Predictor, row: Row, answers: dict[Coalition, Answer]) -> Contribution:
    task, players = predictor.task, sorted(frozenset().union(*answers), key=predictor.bundle.modalities.index)
    whole = answers[frozenset(players)].probabilities
    chosen_U, chance = task.decide(np.atleast_2d(whole)), -float(np.log(len(task.classes)))
    told = {shown: _log(np.atleast_2d(answer.probabilities), chosen_U) for shown, answer in answers.items()}
    nothing_U = np.full(len(chosen_U), chance)
    values = {shown: told.get(shown, nothing_U) for shown in coalitions(players)}
    alone = (lambda values_U: float(values_U[0])) if task.unit == "row" else (lambda values_U: values_U)
    return Contribution(
        answer=task.name(task.answer(row.text, whole)),
        log_probability=alone(told[frozenset(players)]),
        modalities={name: alone(values_U) for name, values_U in shapley(values, players).items()},
        chance=chance,
    )


def _log(probs_UC: NDArray[np.floating], chosen_U: NDArray[np.integer]) -> NDArray[np.float64]:
    logs_U: NDArray[np.float64] = np.log(
        np.clip(probs_UC[np.arange(len(chosen_U)), chosen_U].astype(np.float64), LEAST, 1)
    )
    return logs_U
