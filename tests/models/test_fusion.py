"""How feature vectors are joined."""

from __future__ import annotations

import pytest
import torch

from fuseline.models.encoders.base import Encoded
from fuseline.models.fusion import FUSIONS, Gated


def features(scale: float = 1.0) -> list[Encoded]:
    random = torch.Generator().manual_seed(0)
    return [
        Encoded.whole(torch.randn(4, 6, generator=random) * scale),
        Encoded.whole(torch.randn(4, 10, generator=random)),
    ]


def flipped(encoded: Encoded) -> Encoded:
    return Encoded.whole(encoded.vector_BD.flip(1))


@pytest.mark.parametrize("kind", sorted(FUSIONS))
def test_features_of_any_sizes_are_joined_to_the_asked_for_width(kind: str) -> None:
    assert FUSIONS[kind]([6, 10], 5)(features()).shape == (4, 5)


@pytest.mark.parametrize("kind", sorted(FUSIONS))
def test_every_modality_has_a_say(kind: str) -> None:
    fusion, (text, image) = FUSIONS[kind]([6, 10], 5), features()
    joint = fusion([text, image])
    assert not torch.allclose(fusion([flipped(text), image]), joint)
    assert not torch.allclose(fusion([text, flipped(image)]), joint)


@pytest.mark.parametrize("kind", sorted(FUSIONS))
def test_a_modality_with_large_features_does_not_drown_the_other(kind: str) -> None:
    fusion = FUSIONS[kind]([6, 10], 5)
    torch.testing.assert_close(fusion(features(scale=1000)), fusion(features()), atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", sorted(FUSIONS))
def test_a_list_with_a_modality_too_few_is_refused(kind: str) -> None:
    with pytest.raises((ValueError, RuntimeError)):
        FUSIONS[kind]([6, 10], 5)(features()[:1])


def test_equal_gates_take_the_mean_of_the_projections() -> None:
    gated, given = Gated([6, 10], 5), features()
    torch.nn.init.zeros_(gated.gate.weight)
    torch.nn.init.zeros_(gated.gate.bias)
    first, second = (project(x.vector_BD) for project, x in zip(gated.project, given, strict=True))
    torch.testing.assert_close(gated(given), (first + second) / 2)
