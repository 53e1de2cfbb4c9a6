"""Fit the ensemble on validation: weights of the members, then a temperature."""

from __future__ import annotations

from pathlib import Path

import torch

from fuseline.config import Expert, Member, Params
from fuseline.models.combine import combine
from fuseline.progress import say
from fuseline.records import Combination
from fuseline.stages import entry
from fuseline.training.combine import choose_weights, fit_temperature, read_validation


def main(params: Params) -> None:
    """build/prepare, build/train → build/combine: combination.json."""
    members = params.members.all()
    said = read_validation(
        entry.PREPARE / "val", {name: member.modalities for name, member in members.items()},
        {name: _folder(name, member) for name, member in members.items()},
    )  # fmt: skip
    pool = params.combine.pool
    weights = choose_weights(said.log_probs_UMC, said.usable_UM, said.labels_U, pool, params.combine.weights)
    logits_UC = combine(said.log_probs_UMC, said.usable_UM, torch.tensor(weights, dtype=torch.float64), pool)
    combination = Combination(
        weights=dict(zip(members, weights, strict=True)),
        temperature=fit_temperature(logits_UC, said.labels_U),
        pool=pool,
    )
    combination.write(entry.fresh(entry.COMBINE) / "combination.json")
    shares = ", ".join(f"{name} {weight:.2f}" for name, weight in combination.weights.items())
    say(f"combine: {shares}, temperature {combination.temperature:.2f}")


def _folder(name: str, member: Member) -> Path:
    return (entry.EXPERTS if isinstance(member, Expert) else entry.FUSIONS) / name


if __name__ == "__main__":
    entry.run(main)
