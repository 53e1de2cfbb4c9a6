"""Metrics and their bootstrap intervals.

Nearly every metric is a function of sums over rows, which the task defines, so that one matrix of resampling counts
gives all metrics of all systems on the same resamples: differences between systems are paired without further ado. What
goes by the order of scores takes the same counts as weights of the rows.

Whole groups are drawn, not rows (cluster bootstrap, Davison and Hinkley 1997, section 3.8): rows of one group
resemble each other, which is why no group straddles a split, and drawn singly they would pass for more evidence
than they are. intervals.py makes intervals of what the draws tell.
Shape letters: N rows, U units, G groups, C classes, R resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fuseline.evaluation import intervals
from fuseline.evaluation.intervals import SHARES
from fuseline.records import Estimate, Evaluation, Forgetting, Metrics, Versus
from fuseline.tasks.base import Floats, Task, Truth

Groups = NDArray[Any]
"""Any hashable names: rows of one group are drawn together."""

LOWER_IS_BETTER = frozenset({"nll", "brier", "ece"})
_CHUNK = 20_000_000
"""Entries of the resampling matrix that are held at once."""


def resample(
    task: Task, probs_UC: Floats, truth: Truth, groups_N: Groups, resamples: int, seed: int = 0
) -> dict[str, Floats]:
    """Score bootstrap resamples [R]; the same seed and groups draw the same rows for every system."""
    sums = {name: _sum_by_group(values, groups_N) for name, values in task.summands(probs_UC, truth).items()}
    ranked = task.ranked(probs_UC, truth)
    names_G, group_N = np.unique(groups_N, return_inverse=True)
    parts = [
        task.metrics({name: counts_RG @ column for name, column in sums.items()})
        | (ranked(counts_RG[:, group_N]) if ranked else {})
        for counts_RG in _counts(len(names_G), resamples, seed, len(groups_N) if ranked else len(names_G))
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _sum_by_group(rows: Floats, groups_N: Groups) -> Floats:
    """Sum rows [N] or [N, any] to [G] or [G, any], groups sorted."""
    order_N = np.argsort(groups_N, kind="stable")
    _, starts_G = np.unique(groups_N[order_N], return_index=True)
    sums: Floats = np.add.reduceat(rows[order_N], starts_G, axis=0)
    return sums


def _counts(groups: int, resamples: int, seed: int, width: int) -> Iterator[Floats]:
    """Yield how often each resample drew each group [R, G], a share of the resamples at a time.

    Args:
        width: of the widest array that is made for each resample.
    """
    random = np.random.default_rng(seed)
    step = max(1, _CHUNK // width)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = random.integers(groups, size=(size, groups))
        flat = np.bincount((drawn + groups * np.arange(size)[:, None]).ravel(), minlength=size * groups)
        yield flat.reshape(size, groups).astype(float)


def estimate(
    task: Task, probs_UC: Floats, truth: Truth, groups_N: Groups, resamples: int, confidence: float
) -> Metrics:
    """Return each metric with its interval."""
    draws, groups = resample(task, probs_UC, truth, groups_N, resamples), len(np.unique(groups_N))
    return {
        name: _not_negative(intervals.estimate(value, draws[name], groups, confidence, name in SHARES))
        for name, value in task.score(probs_UC, truth).items()
    }


def _not_negative(found: Estimate) -> Estimate:
    return found if found.low is None else found.model_copy(update={"low": max(0.0, found.low)})


def estimate_gain(
    task: Task, after_UC: Floats, before_UC: Floats, truth: Truth, groups_N: Groups, resamples: int, confidence: float,
    than: Task | None = None,
) -> Metrics:  # fmt: skip
    """Return by how much `after` is better than `before`, paired; positive is better for every metric.

    Args:
        than: the problem as `before` answers it, where that is otherwise.
    """
    systems, groups = ((task, after_UC), (than or task, before_UC)), len(np.unique(groups_N))
    after, before = (each.score(probs_UC, truth) for each, probs_UC in systems)
    draws_after, draws_before = (resample(*system, truth, groups_N, resamples) for system in systems)
    gains = {}
    for name in after:
        sign = -1 if name in LOWER_IS_BETTER else 1
        draws_R = sign * (draws_after[name] - draws_before[name])
        gains[name] = intervals.estimate(sign * (after[name] - before[name]), draws_R, groups, confidence)
    return gains


def best_of(systems: Mapping[str, Metrics], metric: str) -> str:
    """Return the name of the system that does best by a metric; of equals, the first by name."""
    return max(sorted(systems), key=lambda name: systems[name][metric].value)


def headline(evaluation: Evaluation) -> dict[str, float]:
    """Reduce an evaluation to the few plain numbers that `dvc metrics show` has room for.

    `fusion_gain`, `best_single` and `member_NAME` are in the headline metric; no member's name holds an underscore, so
    none hides another key.
    """
    metric = evaluation.headline
    members = {name: metrics[metric].value for name, metrics in evaluation.members.items()}
    return {
        **{name: estimate.value for name, estimate in evaluation.ensemble.items()},
        "fusion_gain": evaluation.fusion_gain[metric].value,
        "best_single": members[evaluation.best_single],
        **{f"member_{name}": value for name, value in members.items()},
    }


def find_forgetting(
    task: Task, than: Task, champion: str, before_UC: Floats, after_UC: Floats, truth: Truth, old_N: NDArray[np.bool_]
) -> Forgetting:
    """Compare champion and challenger on old rows and on new ones.

    Args:
        than: the problem as the champion answers it.
        champion: its version.
        before_UC: the champion's probabilities.
        after_UC: the challenger's.
        old_N: which rows the champion's data set held.
    """
    overall: dict[str, Versus] = {}
    recall: dict[str, dict[str, Versus]] = {}
    for name, rows_N in (("old", old_N), ("new", ~old_N)):
        if not rows_N.any():
            continue
        there, units = truth.take(rows_N), truth.units(rows_N)
        both = (than, before_UC[units]), (task, after_UC[units])
        theirs, ours = (each.score(probs_UC, there)[task.headline] for each, probs_UC in both)
        overall[name] = Versus(rows=int(rows_N.sum()), champion=theirs, challenger=ours)
        tables = zip(*(each.table(probs_UC, there)[0] for each, probs_UC in both), strict=True)
        recall[name] = {
            one.label: Versus(rows=one.support, champion=one.recall, challenger=other.recall)
            for one, other in tables
            if one.support
        }
    return Forgetting(champion=champion, metric=task.headline, overall=overall, recall=recall)


def disagreement(members: Mapping[str, Floats], seen: Mapping[str, NDArray[np.bool_]]) -> dict[str, dict[str, float]]:
    """Return for each pair of members the share of units on which they name different classes.

    Args:
        members: probabilities [U, C] by member.
        seen: by member, the units on which it sees something; pairs with no such unit in common are left out.
    """
    found: dict[str, dict[str, float]] = {}
    for (one, first_UC), (other, second_UC) in permutations(members.items(), 2):
        both = seen[one] & seen[other]
        if both.any():
            differs = first_UC[both].argmax(1) != second_UC[both].argmax(1)
            found.setdefault(one, {})[other] = float(differs.mean())
    return found
