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
from torch import Tensor
from torch.nn import functional as F

from fuseline.config import Fitted, Greedy, MemberWeights
from fuseline.inputs import READERS
from fuseline.models.combine import combine, usable
from fuseline.records import files_of


@dataclass(frozen=True)
class Said:
    """What members said on validation, of the units of rows with anything that any member sees."""

    log_probs_UMC: Tensor
    """float64 [U, M, C]."""
    usable_UM: Tensor
    """Which member can say anything, bool [U, M]."""
    labels_U: Tensor


def read_validation(split: Path, modalities: Mapping[str, Sequence[str]], folders: Mapping[str, Path]) -> Said:
    """Read what members said on validation.

    Args:
        modalities: each member's.
        folders: each member's, with what it said in validation.npy.
    """
    used = sorted({name for each in modalities.values() for name in each})
    needed = ["label", *(READERS[name].column for name in used)]
    columns = pa.concat_tables(pq.ParquetFile(file).read(needed) for file in files_of(split))
    present = {name: torch.tensor(columns[name].is_valid().to_numpy()) for name in used}
    usable_UM = usable(list(modalities.values()), present)
    said = [np.load(folders[name] / "validation.npy", allow_pickle=False) for name in modalities]
    labels_U = columns["label"]
    if pa.types.is_list(labels_U.type):
        labels_U = labels_U.combine_chunks()
        usable_UM = usable_UM.repeat_interleave(torch.tensor(labels_U.value_lengths().to_numpy()), dim=0)
        labels_U = labels_U.flatten()
    seen_U = usable_UM.any(1)
    log_probs_UMC = torch.from_numpy(np.stack(said, axis=1)).double()
    return Said(log_probs_UMC[seen_U], usable_UM[seen_U], torch.tensor(labels_U.to_numpy())[seen_U])


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


def leave_out(
    log_probs_NMC: Tensor, usable_NM: Tensor, weights: Sequence[float], temperature: float, pool: str
) -> list[Tensor]:
    """Return for each of two or more members the ensemble's probabilities [N, C] without it.

    The others keep their weights' proportions; where they weigh nothing, they weigh alike.
    """
    found = []
    for member in range(len(weights)):
        rest = [other for other in range(len(weights)) if other != member]
        weights_M = torch.tensor(weights, dtype=log_probs_NMC.dtype)[rest]
        pooled_NC = combine(log_probs_NMC[:, rest], usable_NM[:, rest], weights_M, pool)
        found.append((pooled_NC / temperature).softmax(1))
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
