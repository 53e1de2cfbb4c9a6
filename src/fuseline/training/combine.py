"""Find what combines members: weights on the simplex, then a temperature, both on validation.

Shape letters: N examples, M members, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fuseline.config import Fitted, Greedy, MemberWeights, Stacking, Task
from fuseline.inputs import READERS
from fuseline.models.combine import Combiner, combine, correct, number_patterns, usable
from fuseline.records import Decoding, Transitions, files_of
from fuseline.training.thresholds import fit_thresholds

Ints = NDArray[np.int64]
TRANSITIONS = "transitions.json"
"""Where a member's scores of steps between tags are, if it learns any."""


@dataclass(frozen=True)
class Said:
    """What members said on validation, of the units of rows with anything that any member sees."""

    log_probs_UMC: Tensor
    """float64 [U, M, C]."""
    usable_UM: Tensor
    """Which member can say anything, bool [U, M]."""
    labels_U: Tensor
    patterns_U: Tensor
    """Numbers of their patterns of availability, by `modalities`."""
    groups_U: Ints
    """Numbers of their groups."""
    modalities: list[str]
    """That any member uses."""


def read_validation(split: Path, modalities: Mapping[str, Sequence[str]], folders: Mapping[str, Path]) -> Said:
    """Read what members said on validation.

    Args:
        modalities: each member's.
        folders: each member's, with what it said in validation.npy.
    """
    used = [name for name in READERS if any(name in each for each in modalities.values())]
    needed = ["label", "group", *(READERS[name].column for name in used)]
    columns = pa.concat_tables(pq.ParquetFile(file).read(needed) for file in files_of(split))
    present = {name: torch.tensor(columns[name].is_valid().to_numpy()) for name in used}
    usable_UM = usable(list(modalities.values()), present)
    said = [np.load(folders[name] / "validation.npy", allow_pickle=False) for name in modalities]
    patterns_U = number_patterns(list(present.values()))
    groups_U = np.unique(columns["group"].to_numpy(), return_inverse=True)[1]
    labels_U = columns["label"]
    if pa.types.is_list(labels_U.type):
        labels_U = labels_U.combine_chunks()
        counts_N = torch.tensor(labels_U.value_lengths().to_numpy())
        usable_UM, patterns_U = (each.repeat_interleave(counts_N, dim=0) for each in (usable_UM, patterns_U))
        groups_U = np.repeat(groups_U, counts_N.numpy())
        labels_U = labels_U.flatten()
    seen_U = usable_UM.any(1)
    log_probs_UMC = torch.from_numpy(np.stack(said, axis=1)).double()
    labels = torch.tensor(labels_U.to_numpy())[seen_U]
    return Said(log_probs_UMC[seen_U], usable_UM[seen_U], labels, patterns_U[seen_U], groups_U[seen_U.numpy()], used)


def weigh_by_pattern(said: Said, weights: Sequence[float], pool: str, how: MemberWeights, pull: float) -> Tensor:
    """Return the members' weights [P, M] for each pattern of availability: those of its rows, drawn towards `weights`.

    A pattern without rows has `weights`.
    """
    table_PM = torch.tensor(weights, dtype=torch.float64).repeat(2 ** len(said.modalities), 1)
    for pattern in said.patterns_U.unique().tolist():
        rows = said.patterns_U == pattern
        own = choose_weights(said.log_probs_UMC[rows], said.usable_UM[rows], said.labels_U[rows], pool, how)
        share = float(rows.sum()) / (float(rows.sum()) + pull)
        table_PM[pattern] = share * torch.tensor(own, dtype=torch.float64) + (1 - share) * table_PM[pattern]
    return table_PM


def choose_stack(said: Said, pooled_UC: Tensor, how: Stacking) -> tuple[tuple[Tensor, Tensor] | None, dict[str, float]]:
    """Fit the correction of a pool, if it pays on held-out rows.

    Args:
        pooled_UC: what the pool says.

    Returns:
        Weights [M, C, C] and bias [C], in the pool's own units, or None where no penalty is better than none at all;
        and the log loss on held-out rows, by penalty.
    """
    folds_U = torch.from_numpy(said.groups_U % how.folds)
    parts = [
        (folds_U != fold, folds_U == fold) for fold in range(how.folds) if 0 < (folds_U == fold).sum() < len(folds_U)
    ]

    def held_out(penalty: float | None) -> float:
        sums = [_hold_out(said, pooled_UC, penalty, *part) for part in parts]
        return sum(sums) / len(said.labels_U)

    losses = {"none": held_out(None)} | {f"{penalty:g}": held_out(penalty) for penalty in how.penalties}
    best = min(losses, key=lambda name: losses[name])
    if best == "none":
        return None, losses
    penalty = next(each for each in how.penalties if f"{each:g}" == best)
    temperature = fit_temperature(pooled_UC, said.labels_U)
    stack_MCC, bias_C = fit_stack(said, pooled_UC / temperature, penalty, torch.ones_like(folds_U, dtype=torch.bool))
    return (stack_MCC * temperature, bias_C * temperature), losses


def _hold_out(said: Said, pooled_UC: Tensor, penalty: float | None, seen_U: Tensor, rest_U: Tensor) -> float:
    """Return the summed log loss on some rows of what was fitted on the others."""
    base_UC = pooled_UC / fit_temperature(pooled_UC[seen_U], said.labels_U[seen_U])
    if penalty is not None:
        stack_MCC, bias_C = fit_stack(said, base_UC, penalty, seen_U)
        base_UC = base_UC + correct(said.log_probs_UMC, said.usable_UM, stack_MCC) + bias_C
    return float(F.cross_entropy(base_UC[rest_U], said.labels_U[rest_U], reduction="sum"))


def fit_stack(said: Said, base_UC: Tensor, penalty: float, seen_U: Tensor) -> tuple[Tensor, Tensor]:
    """Fit the correction that makes the log loss lowest on the chosen rows; half its squares cost `penalty`."""
    members, classes = said.log_probs_UMC.shape[1:]
    free = torch.zeros(members * classes + 1, classes, dtype=torch.float64, requires_grad=True)
    said_UMC, usable_UM = said.log_probs_UMC[seen_U], said.usable_UM[seen_U]

    def loss() -> Tensor:
        stack_MCC = free[:-1].unflatten(0, (members, classes))
        scores_UC = base_UC[seen_U] + correct(said_UMC, usable_UM, stack_MCC) + free[-1]
        return F.cross_entropy(scores_UC, said.labels_U[seen_U]) + penalty * free.square().sum() / (2 * len(said_UMC))

    _minimise(loss, free)
    found = free.detach()
    return found[:-1].unflatten(0, (members, classes)), found[-1]


def pool_transitions(
    members: Sequence[Transitions | None], plain: Transitions, weights: Sequence[float], temperature: float
) -> Transitions | None:
    """Return an ensemble's scores of steps between tags: the members' weighted mean, as cool as their probabilities.

    With these and a geometric pool the ensemble is itself a CRF: the pool of its members' distributions over sequences.

    Args:
        members: each one's; None for one that learns none.
        plain: theirs: what the scheme allows, alike.
    """
    if all(each is None for each in members):
        return None
    parts = [each or plain for each in members]
    means = {
        name: np.tensordot(weights, np.array([getattr(part, name) for part in parts]), 1) / temperature
        for name in type(plain).model_fields
    }
    return Transitions(**{name: scores.tolist() for name, scores in means.items()})


def read_learned(folder: Path) -> Transitions | None:
    """Read a member's scores of steps between tags, if it learned any."""
    return Transitions.read(folder / TRANSITIONS) if (folder / TRANSITIONS).is_file() else None


def fit_decoding(
    task: Task, said: Said, probs_UC: Tensor, seen_U: Tensor, transitions: Transitions | None = None
) -> Decoding:
    """Find how a system's probabilities become an answer.

    Args:
        seen_U: the units of rows that it sees.
        transitions: its scores of steps between tags, where it has learned any.
    """
    if task.thresholds is None:
        return Decoding(transitions=transitions)
    yes_NL, true_NL = (each[seen_U].reshape(-1, len(task.labels)).numpy() for each in (probs_UC[:, 1], said.labels_U))
    return Decoding(thresholds=fit_thresholds(yes_NL, true_NL, task.thresholds.shrink))


def choose_weights(
    log_probs_NMC: Tensor, usable_NM: Tensor, labels_N: Tensor, pool: str, how: MemberWeights
) -> list[float]:
    """Return the members' weights, which sum to 1, as the params ask for them."""
    if isinstance(how, Fitted):
        return fit_weights(log_probs_NMC, usable_NM, labels_N, pool, how.uniform_pull)
    if isinstance(how, Greedy):
        return select_greedily(log_probs_NMC, usable_NM, labels_N, pool, how.rounds)
    members = log_probs_NMC.shape[1]
    return [1 / members] * members


def select_greedily(log_probs_NMC: Tensor, usable_NM: Tensor, labels_N: Tensor, pool: str, rounds: int) -> list[float]:
    """Take, `rounds` times, the member that makes the negative log-likelihood of all taken lowest; of equals the first.

    A member weighs by how often it was taken (Caruana et al. 2004, with replacement).
    """
    taken_M = torch.zeros(log_probs_NMC.shape[1], dtype=torch.float64)

    def loss(member: int) -> float:
        weights_M = taken_M.clone()
        weights_M[member] += 1
        pooled_NC = combine(log_probs_NMC, usable_NM, weights_M / weights_M.sum(), pool)
        return float(F.cross_entropy(pooled_NC, labels_N))

    for _ in range(rounds):
        taken_M[min(range(len(taken_M)), key=loss)] += 1
    return (taken_M / rounds).tolist()


def fit_weights(
    log_probs_NMC: Tensor, usable_NM: Tensor, labels_N: Tensor, pool: str, uniform_pull: float
) -> list[float]:
    """Minimise the negative log-likelihood over weights >= 0 that sum to 1.

    The divergence from equal weights, times `uniform_pull`, is added: a small validation split
    would else give everything to one member.
    """
    members = log_probs_NMC.shape[1]
    if members == 1:
        return [1.0]
    free_M = torch.zeros(members, dtype=torch.float64, requires_grad=True)

    def loss() -> Tensor:
        pooled_NC = combine(log_probs_NMC, usable_NM, free_M.softmax(0), pool)
        pull = (free_M.log_softmax(0) + torch.tensor(float(members)).log()).neg().mean()
        return F.cross_entropy(pooled_NC, labels_N) + uniform_pull * pull

    _minimise(loss, free_M)
    return [float(weight) for weight in free_M.detach().softmax(0)]


def leave_out(log_probs_NMC: Tensor, usable_NM: Tensor, patterns_N: Tensor, combiner: Combiner) -> list[Tensor]:
    """Return for each of two or more members the ensemble's probabilities [N, C] without it.

    The others keep their weights' proportions; where they weigh nothing, they weigh alike.
    """
    found, members = [], range(log_probs_NMC.shape[1])
    for member in members:
        rest = [other for other in members if other != member]
        logits_NC = combiner.without(member)(log_probs_NMC[:, rest], usable_NM[:, rest], patterns_N)
        found.append(logits_NC.softmax(1))
    return found


def fit_temperature(logits_NC: Tensor, labels_N: Tensor) -> float:
    """Minimise the negative log-likelihood over one temperature (Guo et al. 2017)."""
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    _minimise(lambda: F.cross_entropy(logits_NC / log_temperature.exp(), labels_N), log_temperature)
    return float(log_temperature.detach().exp().clamp(0.05, 20))


def _minimise(loss: Callable[[], Tensor], parameter: Tensor) -> None:
    optimizer = torch.optim.LBFGS([parameter], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
