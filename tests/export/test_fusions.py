"""Each way to join modalities gives the same in the graph as in torch, whatever is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch

from fuseline.models.ensemble import Ensemble
from fuseline.models.fusion import FUSIONS
from fuseline.models.member import FusionModel
from tests.conftest import combiner_of, liven
from tests.export.test_bundle import CPU, draw

KINDS: dict[str, Any] = {
    "late": "late", "low-rank": {"rank": 2}, "cross-attention": {"heads": 2, "layers": 2},
    "mixture-of-experts": {"experts": 3, "chosen": 2, "balance": 0.1},
}  # fmt: skip
"""The kinds that the ensemble of the other tests has not."""


@pytest.fixture(scope="module")
def joined(build: Callable[..., FusionModel], fusion: Callable[..., Any]) -> Ensemble:
    members = {
        name: liven(build(fusion(fusion=kind), seed, side=64), seed) for seed, (name, kind) in enumerate(KINDS.items())
    }
    assert [member.config.fusion for member in members.values()] == list(KINDS)
    return Ensemble(members, combiner_of([0.25] * 4, 0.8)).eval()


@pytest.fixture(scope="module")
def session(joined: Ensemble, export: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = export(tmp_path_factory.mktemp("fusions") / "bundle", joined)
    return ort.InferenceSession(str(folder / "model.onnx"), providers=CPU)


def test_every_kind_is_exported_here_or_with_the_bundle(ensemble: Ensemble) -> None:
    bundled = {member.config.fusion for member in ensemble.members} - {None}  # type: ignore[union-attr]
    assert bundled | KINDS.keys() == FUSIONS.keys()


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (2, 7, 48, 40), (5, 24, 200, 31), (17, 9, 33, 32)], ids=str)
def test_the_graph_joins_as_torch_does(
    sizes: tuple[int, int, int, int], session: ort.InferenceSession, joined: Ensemble
) -> None:
    feeds = draw(*sizes)
    with torch.no_grad():
        expected = joined(**{name: torch.from_numpy(array) for name, array in feeds.items()})
    for found, tensor in zip(session.run(["probabilities", "logits", "members"], feeds), expected, strict=True):
        np.testing.assert_allclose(found, tensor.numpy(), atol=1e-4)


def test_the_graph_joins_nothing_at_all_as_torch_does(session: ort.InferenceSession, joined: Ensemble) -> None:
    feeds = draw(3, 5, 20, 20)
    feeds |= {name: np.zeros(3, dtype=np.bool_) for name in ("has_text", "has_image")}
    with torch.no_grad():
        _, expected, _ = joined(**{name: torch.from_numpy(array) for name, array in feeds.items()})
    (found,) = session.run(["logits"], feeds)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
