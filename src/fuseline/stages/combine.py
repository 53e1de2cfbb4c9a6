"""Fit the ensemble on validation: weights of the members, then a temperature."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from fuseline.config import Expert, Member, Params
from fuseline.inputs import READERS
from fuseline.models.combine import combine, usable
from fuseline.progress import say
from fuseline.records import Combination, files_of
from fuseline.stages import entry
from fuseline.training.combine import choose_weights, fit_temperature


def main(params: Params) -> None:
    """build/prepare, build/train → build/combine: combination.json."""
    members = params.members.all()
    log_probs_UMC, usable_UM, labels_U = read_validation(members)
    pool = params.combine.pool
    weights = choose_weights(log_probs_UMC, usable_UM, labels_U, pool, params.combine.weights)
    logits_UC = combine(log_probs_UMC, usable_UM, torch.tensor(weights, dtype=torch.float64), pool)
    combination = Combination(
        weights=dict(zip(members, weights, strict=True)), temperature=fit_temperature(logits_UC, labels_U), pool=pool
    )
    combination.write(entry.fresh(entry.COMBINE) / "combination.json")
    shares = ", ".join(f"{name} {weight:.2f}" for name, weight in combination.weights.items())
    say(f"combine: {shares}, temperature {combination.temperature:.2f}")


def read_validation(members: dict[str, Member]) -> tuple[Tensor, Tensor, Tensor]:
    """Read what the members said on validation, of the units of rows with anything that any member sees.

    Returns:
        log-probabilities, float64 [U, M, C]; which member can say anything, bool [U, M]; labels [U].
    """
    used: list[str] = sorted({name for member in members.values() for name in member.modalities})
    needed = ["label", *(READERS[name].column for name in used)]
    columns = pa.concat_tables(pq.ParquetFile(file).read(needed) for file in files_of(entry.PREPARE / "val"))
    present = {name: torch.tensor(columns[name].is_valid().to_numpy()) for name in used}
    usable_NM = usable([member.modalities for member in members.values()], present)
    said = [np.load(_folder(name, member) / "validation.npy", allow_pickle=False) for name, member in members.items()]
    labels_U, usable_UM = columns["label"], usable_NM
    if pa.types.is_list(labels_U.type):
        labels_U = labels_U.combine_chunks()
        usable_UM = usable_NM.repeat_interleave(torch.tensor(labels_U.value_lengths().to_numpy()), dim=0)
        labels_U = labels_U.flatten()
    seen_U = usable_UM.any(1)
    log_probs_UMC = torch.from_numpy(np.stack(said, axis=1)).double()
    return log_probs_UMC[seen_U], usable_UM[seen_U], torch.tensor(labels_U.to_numpy())[seen_U]


def _folder(name: str, member: Member) -> Path:
    return (entry.EXPERTS if isinstance(member, Expert) else entry.FUSIONS) / name


if __name__ == "__main__":
    entry.run(main)
