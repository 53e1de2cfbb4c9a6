"""Fit the ensemble on validation: weights of the members, then a temperature."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from fuseline.config import Params
from fuseline.models.ensemble import combine, usable
from fuseline.progress import say
from fuseline.records import Combination
from fuseline.stages import entry
from fuseline.training.checkpoints import load_members, load_saved_tokenizer
from fuseline.training.combine import fit_temperature, fit_weights
from fuseline.training.examples import Collator, Examples
from fuseline.training.predict import predict_log_probs
from fuseline.training.trainer import set_up


def main(params: Params) -> None:
    """build/prepare, build/train → build/combine: combination.json."""
    set_up(params.train)
    members = load_members(entry.TRAIN, list(params.members.all()))
    side = params.encoders.image.size
    collate = Collator(load_saved_tokenizer(entry.TRAIN, members), side, len(params.task.labels))
    with tempfile.TemporaryDirectory(prefix="fuseline-examples-") as cache:
        val = Examples(entry.PREPARE / "val.parquet", Path(cache), side, params.members.modalities())
        log_probs = np.stack([predict_log_probs(model, val, collate) for model in members.values()], axis=1)
        labels, present = torch.from_numpy(val.labels), {k: torch.from_numpy(v) for k, v in val.present().items()}
    log_probs_NMC = torch.from_numpy(log_probs).double()
    usable_NM = usable([model.config.modalities for model in members.values()], present)
    pool, pull = params.combine.pool, params.combine.uniform_pull
    weights = fit_weights(log_probs_NMC, usable_NM, labels, pool, pull)
    logits_NC = combine(log_probs_NMC, usable_NM, torch.tensor(weights, dtype=torch.float64), pool)
    combination = Combination(
        weights=dict(zip(members, weights, strict=True)), temperature=fit_temperature(logits_NC, labels), pool=pool
    )
    combination.write(entry.fresh(entry.COMBINE) / "combination.json")
    shares = ", ".join(f"{name} {weight:.2f}" for name, weight in combination.weights.items())
    say(f"combine: {shares}, temperature {combination.temperature:.2f}")


if __name__ == "__main__":
    entry.run(main)
