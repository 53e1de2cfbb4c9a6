"""What pre-training asks of two encoders, against the same thing written plainly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from fuseline import config
from fuseline.models.encoders.base import Encoded
from fuseline.models.joint import JointConfig, JointModel
from fuseline.training.modalities.base import Modality
from fuseline.training.modalities.text import find_mask


@pytest.fixture
def joint(modalities: dict[str, Modality], encoders: config.Encoders) -> Callable[..., JointModel]:
    """Give the builder of a tiny model; keywords replace what its config has."""

    def make(**changes: Any) -> JointModel:
        torch.manual_seed(0)
        mask, special = find_mask(encoders.text)
        own = {
            "modalities": ["text", "image"], "objectives": {"contrast": 1.0, "match": 1.0, "masked_words": 1.0},
            "encoders": {name: modalities[name].architecture() for name in ("text", "image")},
            "hidden": 8, "heads": 2, "mask": 0.5, "mask_token": mask, "special_tokens": special,
        }  # fmt: skip
        return JointModel(JointConfig(**(own | changes)))

    return make


@pytest.fixture
def pairs(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give the rows of a batch that have both a text and a picture."""
    both = batch["has_text"] & batch["has_image"]
    assert both.sum() > 3
    return {name: tensor[both] for name, tensor in batch.items()}


def test_the_loss_is_the_sum_of_the_objectives_by_their_weights(
    joint: Callable[..., JointModel], pairs: dict[str, torch.Tensor]
) -> None:
    def loss(**weights: float) -> float:
        zeros = {"contrast": 0.0, "match": 0.0, "masked_words": 0.0}
        return float(joint(objectives=zeros | weights).eval()(**pairs)["loss"].detach())

    alone = [loss(contrast=1.0), loss(match=1.0), loss(masked_words=1.0)]
    assert all(each > 0.1 for each in alone)
    assert loss(contrast=2.0, match=0.5, masked_words=3.0) == pytest.approx(
        2 * alone[0] + 0.5 * alone[1] + 3 * alone[2], rel=1e-5
    )


def test_contrast_is_cross_entropy_both_ways_over_cosines_of_the_batch(
    joint: Callable[..., JointModel], pairs: dict[str, torch.Tensor]
) -> None:
    model = joint(objectives={"contrast": 1.0, "match": 0.0, "masked_words": 0.0}).eval()
    text = model.project["text"](model.encoders["text"](pairs["input_ids"], pairs["attention_mask"]).vector_BD)
    image = model.project["image"](model.encoders["image"](pairs["pixels"]).vector_BD)
    cosines = F.cosine_similarity(text[:, None], image[None], dim=2) / 0.07
    own = torch.arange(len(text))
    expected = (F.cross_entropy(cosines, own) + F.cross_entropy(cosines.T, own)) / 2
    found = model(**pairs)
    torch.testing.assert_close(found["loss"], expected)
    assert found["logits"].tolist() == (cosines.argmax(1) == own).tolist()


def test_words_are_hidden_at_the_rate_asked_for_and_never_special_ones(joint: Callable[..., JointModel]) -> None:
    model = joint(mask=0.2)
    model.train()
    torch.manual_seed(1)
    ids = torch.randint(0, len(model.word_bias), (400, 40))
    mask = torch.ones_like(ids)
    mask[:, 30:] = 0
    shown, hidden = model.hide(ids, mask)
    fair = ~torch.isin(ids, torch.tensor(model.config.special_tokens)) & mask.bool()
    assert not hidden[~fair].any()
    assert float(hidden[fair].float().mean()) == pytest.approx(0.2, abs=0.02)
    assert torch.equal(shown[~hidden], ids[~hidden])
    assert float((shown[hidden] == model.config.mask_token).float().mean()) == pytest.approx(0.8, abs=0.03)
    assert float((shown[hidden] == ids[hidden]).float().mean()) == pytest.approx(0.1, abs=0.05)


def test_in_evaluation_the_same_words_are_hidden_each_time(
    joint: Callable[..., JointModel], pairs: dict[str, torch.Tensor]
) -> None:
    model = joint().eval()
    assert torch.equal(model(**pairs)["loss"], model(**pairs)["loss"])
    model.train()
    first, second = (model.hide(pairs["input_ids"], pairs["attention_mask"])[1] for _ in range(2))
    assert not torch.equal(first, second)


def test_what_does_not_match_is_never_the_row_s_own(joint: Callable[..., JointModel]) -> None:
    model = joint().train()
    own = torch.arange(12)
    for _ in range(50):
        assert not (model._draw_wrong(torch.eye(12) * 100) == own).any()


def test_each_head_attends_by_itself(joint: Callable[..., JointModel]) -> None:
    torch.manual_seed(3)
    text, image = (
        Encoded(torch.zeros(2, size), torch.randn(2, 5, size), torch.ones(2, 5, dtype=torch.bool))
        for size in (int(joint().encoders[name].size) for name in ("text", "image"))
    )
    two, four = joint(heads=2).eval(), joint(heads=4).eval()
    four.load_state_dict(two.state_dict())
    assert not torch.allclose(two.see(text, image), four.see(text, image))


def test_words_are_guessed_with_the_picture_in_sight(
    joint: Callable[..., JointModel], pairs: dict[str, torch.Tensor]
) -> None:
    model = joint().eval()
    text = model.encoders["text"](pairs["input_ids"], pairs["attention_mask"])
    image = model.encoders["image"](pairs["pixels"])
    darker = Encoded(image.vector_BD, image.states_BTD * 0.1, image.mask_BT)
    assert not torch.allclose(model.see(text, image), model.see(text, darker))
