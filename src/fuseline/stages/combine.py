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
    log_probs_NMC, usable_NM, labels_N = read_validation(members)
    pool = params.combine.pool
    weights = choose_weights(log_probs_NMC, usable_NM, labels_N, pool, params.combine.weights)
    logits_NC = combine(log_probs_NMC, usable_NM, torch.tensor(weights, dtype=torch.float64), pool)
    combination = Combination(
        weights=dict(zip(members, weights, strict=True)), temperature=fit_temperature(logits_NC, labels_N), pool=pool
    )
    combination.write(entry.fresh(entry.COMBINE) / "combination.json")
    shares = ", ".join(f"{name} {weight:.2f}" for name, weight in combination.weights.items())
    say(f"combine: {shares}, temperature {combination.temperature:.2f}")


def read_validation(members: dict[str, Member]) -> tuple[Tensor, Tensor, Tensor]:
    """Read what the members said on validation, of the rows with anything that any member sees.

    Returns:
        log-probabilities, float64 [N, M, C]; which member can say anything, bool [N, M]; labels [N].
    """
    used: list[str] = sorted({name for member in members.values() for name in member.modalities})
    needed = ["label", *(READERS[name].column for name in used)]
    columns = pa.concat_tables(pq.ParquetFile(file).read(needed) for file in files_of(entry.PREPARE / "val"))
    present = {name: torch.tensor(columns[name].is_valid().to_numpy()) for name in used}
    usable_NM = usable([member.modalities for member in members.values()], present)
    said = [np.load(_folder(name, member) / "validation.npy", allow_pickle=False) for name, member in members.items()]
    seen_N = usable_NM.any(1)
    log_probs_NMC = torch.from_numpy(np.stack(said, axis=1)).double()
    return log_probs_NMC[seen_N], usable_NM[seen_N], torch.tensor(columns["label"].to_numpy())[seen_N]


def _folder(name: str, member: Member) -> Path:
    return (entry.EXPERTS if isinstance(member, Expert) else entry.FUSIONS) / name


if __name__ == "__main__":
    entry.run(main)
