"""How the modalities' features are joined."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fuseline.models.encoders.base import Encoded
from fuseline.models.fusion import FUSIONS, CrossAttention, Fusion, Gated, Late, LowRank, Mixture, imbalance

OPTIONS: dict[str, dict[str, Any]] = {
    "low-rank": {"rank": 3},
    "cross-attention": {"heads": 2, "layers": 1},
    "mixture-of-experts": {"experts": 4, "chosen": 2, "balance": 0.1},
}
BOTH = torch.ones(4, 2, dtype=torch.bool)


def make(kind: str, seed: int = 0) -> Fusion:
    torch.manual_seed(seed)
    return FUSIONS[kind]([6, 10], 8, **OPTIONS.get(kind, {})).eval()


def join(fusion: Fusion, encoded: list[Encoded], present: Tensor = BOTH) -> Tensor:
    return fusion(encoded, present).vector_BD  # type: ignore[no-any-return]


def features(scale: float = 1.0) -> list[Encoded]:
    random = torch.Generator().manual_seed(0)
    return [
        Encoded.whole(torch.randn(4, 6, generator=random) * scale),
        Encoded.whole(torch.randn(4, 10, generator=random)),
    ]


def tokens() -> list[Encoded]:
    """Give a vector and five tokens for each of four rows and two modalities; of the second, two tokens are padding."""
    random = torch.Generator().manual_seed(1)
    mask = torch.ones(4, 5, dtype=torch.bool)
    return [
        Encoded(torch.randn(4, 6, generator=random), torch.randn(4, 5, 6, generator=random), mask),
        Encoded(
            torch.randn(4, 10, generator=random), torch.randn(4, 5, 10, generator=random),
            mask & (torch.arange(5) < 3),
        ),
    ]  # fmt: skip


def flipped(encoded: Encoded) -> Encoded:
    return Encoded.whole(encoded.vector_BD.flip(1))


def test_every_kind_is_looked_at() -> None:
    assert FUSIONS.keys() >= OPTIONS.keys()
    assert len(FUSIONS) == 6


@pytest.mark.parametrize("kind", sorted(FUSIONS))
def test_features_of_any_sizes_are_joined_to_the_width_that_is_told(kind: str) -> None:
    fusion = make(kind)
    assert join(fusion, features()).shape == (4, fusion.size)
    assert fusion.size == (16 if kind == "late" else 8)


@pytest.mark.parametrize("kind", sorted(FUSIONS))
def test_every_modality_has_a_say(kind: str) -> None:
    fusion, (text, image) = make(kind), features()
    joint = join(fusion, [text, image])
    assert not torch.allclose(join(fusion, [flipped(text), image]), joint)
    assert not torch.allclose(join(fusion, [text, flipped(image)]), joint)


@pytest.mark.parametrize("kind", sorted(FUSIONS))
def test_a_modality_with_large_features_does_not_drown_the_other(kind: str) -> None:
    fusion = make(kind)
    torch.testing.assert_close(join(fusion, features(scale=1000)), join(fusion, features()), atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", sorted(FUSIONS))
def test_a_list_with_a_modality_too_few_is_refused(kind: str) -> None:
    with pytest.raises((ValueError, RuntimeError)):
        join(make(kind), features()[:1], BOTH[:, :1])


@pytest.mark.parametrize("kind", sorted(FUSIONS))
def test_what_stands_in_the_padding_does_not_matter(kind: str) -> None:
    fusion, (text, image) = make(kind), tokens()
    changed = torch.where(image.mask_BT[:, :, None], image.states_BTD, 1e4)
    assert torch.equal(join(fusion, [text, image._replace(states_BTD=changed)]), join(fusion, [text, image]))


@pytest.mark.parametrize("kind", sorted(FUSIONS))
def test_a_kind_tells_whether_it_looks_at_parts(kind: str) -> None:
    fusion, (text, image) = make(kind), tokens()
    changed = join(fusion, [text._replace(states_BTD=text.states_BTD.flip(2)), image])
    assert torch.equal(changed, join(fusion, [text, image])) != fusion.looks_at_states


def test_equal_gates_take_the_mean_of_the_projections() -> None:
    gated, given = Gated([6, 10], 5), features()
    torch.nn.init.zeros_(gated.gate.weight)
    torch.nn.init.zeros_(gated.gate.bias)
    first, second = (project(x.vector_BD) for project, x in zip(gated.project, given, strict=True))
    torch.testing.assert_close(join(gated, given), (first + second) / 2)


def test_late_fusion_averages_the_heads_of_what_is_there() -> None:
    late, given, head = Late([6, 10], 5), features(), torch.nn.Linear(10, 3)
    present = torch.tensor([[True, True], [True, False], [False, True], [False, False]])
    first, second = (
        project(x.vector_BD) @ weight.T
        for project, x, weight in zip(late.project, given, head.weight.split(5, dim=1), strict=True)
    )
    expected = torch.stack([(first[0] + second[0]) / 2, first[1], second[2], torch.zeros(3)]) + head.bias
    torch.testing.assert_close(head(join(late, given, present)), expected)


def test_low_rank_products_are_those_of_a_whole_tensor() -> None:
    fusion, given = LowRank([6, 10], 5, rank=3), features()
    with torch.no_grad():
        for factor in fusion.factors:
            factor.bias.normal_()  # type: ignore[operator, union-attr]
    ends = [torch.cat([p(x.vector_BD), torch.ones(4, 1)], 1) for p, x in zip(fusion.project, given, strict=True)]
    parts = [torch.cat([f.weight, f.bias[:, None]], 1).view(3, 5, 6) for f in fusion.factors]  # type: ignore[index]
    tensor = torch.einsum("rdi,rdj->dij", *parts)
    expected = torch.einsum("dij,bi,bj->bd", tensor, *ends)
    torch.testing.assert_close(join(fusion, given), fusion.norm(expected))


def test_at_first_low_rank_products_hold_each_modality_alone_too() -> None:
    fusion = make("low-rank")
    assert isinstance(fusion, LowRank)
    assert all((factor.bias == 1).all() for factor in fusion.factors)


@pytest.mark.parametrize("modality", [0, 1])
def test_each_part_of_a_modality_is_seen_by_attention(modality: int) -> None:
    fusion, given = make("cross-attention"), tokens()
    before = join(fusion, given)
    states = given[modality].states_BTD.clone()
    states[:, 1] += torch.linspace(-3, 3, states.shape[2])
    assert not torch.allclose(join(fusion, [*given[:modality], given[modality]._replace(states_BTD=states),
                                            *given[modality + 1 :]]), before)  # fmt: skip


def test_attention_does_not_mind_the_order_of_parts() -> None:
    fusion, (text, image) = make("cross-attention"), tokens()
    turned = text._replace(states_BTD=text.states_BTD.flip(1))
    torch.testing.assert_close(join(fusion, [turned, image]), join(fusion, [text, image]))


def test_an_example_without_parts_attends_to_its_vector_alone() -> None:
    fusion, (text, image) = make("cross-attention"), tokens()
    none = image._replace(mask_BT=torch.zeros_like(image.mask_BT))
    one = image._replace(states_BTD=image.states_BTD[:, :0], mask_BT=image.mask_BT[:, :0])
    torch.testing.assert_close(join(fusion, [text, none]), join(fusion, [text, one]))


def test_three_modalities_attend_to_each_other() -> None:
    fusion, given = CrossAttention([6, 10, 6], 8, heads=2, layers=2), [*tokens(), tokens()[0]]
    joint = fusion(given, torch.ones(4, 3, dtype=torch.bool)).vector_BD
    joint.sum().backward()
    assert joint.shape == (4, 8)
    assert all(float(p.grad.abs().sum()) > 0 for p in fusion.parameters())  # type: ignore[union-attr]


def test_only_the_chosen_experts_speak_each_as_the_router_says() -> None:
    fusion, given = make("mixture-of-experts"), features()
    assert isinstance(fusion, Mixture)
    joint = torch.cat([p(x.vector_BD) for p, x in zip(fusion.project, given, strict=True)], dim=1)
    probs = fusion.router(joint).softmax(1)
    expected = torch.zeros(4, 8)
    for row in range(4):
        for expert in probs[row].argsort(descending=True)[:2]:
            expected[row] += probs[row, expert] * fusion.experts[int(expert)](joint[row])
    torch.testing.assert_close(join(fusion, given), expected)


def test_the_router_pays_for_imbalance_in_training_only() -> None:
    fusion, given = make("mixture-of-experts"), features()
    assert fusion(given, BOTH).penalty is None
    penalty = fusion.train()(given, BOTH).penalty
    assert 0.09 < float(penalty.detach()) < 0.4
    torch.testing.assert_close(join(fusion.eval(), given), join(fusion.train(), given))


def test_balance_costs_one_and_one_expert_for_all_costs_as_many_as_there_are() -> None:
    even = torch.full((8, 4), 0.25)
    turns = torch.eye(4).repeat(2, 1)
    assert float(imbalance(even, turns)) == pytest.approx(1)
    assert float(imbalance(even, turns + turns.roll(1, 1))) == pytest.approx(1)  # two for each row
    one = torch.eye(4)[torch.zeros(8, dtype=torch.long)]
    assert float(imbalance(one, one)) == pytest.approx(4)


def test_the_penalty_makes_a_router_that_prefers_one_expert_use_all() -> None:
    random = torch.Generator().manual_seed(0)
    x, router = torch.randn(64, 4, generator=random), torch.nn.Linear(4, 4)
    with torch.no_grad():
        router.bias.copy_(torch.tensor([3.0, 0.0, 0.0, 0.0]))
    step = torch.optim.Adam(router.parameters(), 0.05)
    for _ in range(200):
        probs = router(x).softmax(1)
        chosen = torch.zeros_like(probs).scatter(1, probs.argmax(1, keepdim=True), 1.0)
        step.zero_grad()
        imbalance(probs, chosen).backward()
        step.step()
    assert chosen.mean(0).max() < 0.5
