"""Weights by pattern of availability, and stacking, are in the graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fuseline.models.ensemble import Ensemble
from fuseline.training.examples import Collator, Examples
from fuseline.training.predict import predict_ensemble
from tests.conftest import LABELS, combiner_of, compare


@pytest.mark.parametrize("pool", ["arithmetic", "geometric"])
def test_a_graph_weighs_by_pattern_and_stacks_as_torch_does(
    pool: str, ensemble: Ensemble, export: Callable[..., Path], prepared: Path, read: Callable[..., Examples],
    readers: dict[str, Any], tmp_path: Path,
) -> None:  # fmt: skip
    random = torch.Generator().manual_seed(0)
    table = torch.rand(4, 4, generator=random)
    stack = torch.randn(4, 3, 3, generator=random), torch.randn(3, generator=random)
    members = dict(zip(ensemble.names, ensemble.members, strict=True))
    plain = combiner_of([0.3, 0.3, 0.3, 0.1], 0.8, pool)
    whole = Ensemble(
        members,
        combiner_of([0.3, 0.3, 0.3, 0.1], 0.8, pool, by_pattern=table / table.sum(1, keepdim=True), stack=stack),
    ).eval()  # type: ignore[arg-type]
    split, collate = read("test"), Collator(readers, len(LABELS))
    evaluated, _ = predict_ensemble(whole, split, collate)
    without, _ = predict_ensemble(Ensemble(members, plain).eval(), split, collate)
    assert np.abs(evaluated - without).max() > 0.05
    parity = compare(export(tmp_path / "bundle", whole), whole, prepared / "test", evaluated, [1, 4])
    assert parity.max_logit_difference < 1e-4
    assert parity.argmax_agreement == 1.0
