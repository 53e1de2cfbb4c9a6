"""One member: what it does with a missing modality, in a batch, on disk, and where its gradients go."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fuseline.config import Expert, Fusion
from fuseline.models.member import FusionModel, hide_some
from fuseline.training.checkpoints import load_member

Build = Callable[..., FusionModel]
Batch = dict[str, Tensor]


def logits(model: FusionModel, batch: Batch) -> Tensor:
    with torch.no_grad():
        return model(**batch)["logits"]


KINDS = {
    "concat": "concat", "gated": "gated", "late": "late", "low rank": {"rank": 2},
    "cross-attention": {"heads": 2, "layers": 2}, "mixture": {"experts": 3, "chosen": 2, "balance": 0.1},
}  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def built(request: pytest.FixtureRequest, build: Build, fusion: Callable[..., Fusion]) -> FusionModel:
    model = build(fusion(fusion=KINDS[request.param]), side=40)  # four cells
    with torch.no_grad():
        for missing in model.missing.values():
            missing.normal_()
    return model


@pytest.fixture
def member(built: FusionModel) -> FusionModel:
    return copy.deepcopy(built)


def test_a_saved_member_answers_as_before_to_the_last_bit(member: FusionModel, batch: Batch, tmp_path: Path) -> None:
    member.train()(**batch)  # moves the buffers of the batch norms
    member.eval().save_pretrained(tmp_path)
    loaded = load_member(tmp_path)
    assert loaded.state_dict().keys() == member.state_dict().keys()
    assert all(torch.equal(tensor, member.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    assert torch.equal(logits(loaded, batch), logits(member, batch))


@pytest.mark.parametrize("modality", ["text", "image"])
def test_a_saved_expert_answers_as_before(
    modality: str, build: Build, expert: Callable[..., Expert], batch: Batch, tmp_path: Path
) -> None:
    model = build(expert(modality))
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(load_member(tmp_path), batch), logits(model, batch))


def test_the_same_seed_builds_the_same_member_and_another_seed_another(
    build: Build, fusion: Callable[..., Fusion]
) -> None:
    first, again, other = (build(fusion(), seed).head.weight for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("training", [False, True], ids=["in evaluation", "in training"])
def test_what_a_missing_picture_shows_does_not_matter(member: FusionModel, batch: Batch, training: bool) -> None:
    member.train(training)
    absent = batch | {"has_image": torch.zeros(8, dtype=torch.bool)}
    noise = torch.randint(0, 256, batch["pixels"].shape, dtype=torch.uint8)
    torch.manual_seed(0)  # the same dropout
    expected = logits(member, absent)
    torch.manual_seed(0)
    assert torch.equal(logits(member, absent | {"pixels": noise}), expected)


def test_what_a_missing_text_says_does_not_matter(member: FusionModel, batch: Batch) -> None:
    absent = batch | {"has_text": torch.zeros(8, dtype=torch.bool)}
    other = absent | {"input_ids": batch["input_ids"].flip(0)}
    assert torch.equal(logits(member, other), logits(member, absent))


def test_the_learned_embedding_stands_in_for_a_missing_picture(member: FusionModel, batch: Batch) -> None:
    absent = batch | {"has_image": torch.zeros(8, dtype=torch.bool)}
    before = logits(member, absent)
    with torch.no_grad():
        member.missing["image"].normal_()
    embeds = member.missing["image"].requires_grad
    assert torch.allclose(logits(member, absent), before) != embeds
    assert embeds == (member.config.fusion != "late")


def test_presence_reaches_the_fusion_in_the_order_of_modalities(
    build: Build, fusion: Callable[..., Fusion], batch: Batch
) -> None:
    member, there = build(fusion(fusion="late")), torch.ones(8, dtype=torch.bool)
    shown = {"has_text": there, "has_image": there}
    for modality in ("text", "image"):
        alone = logits(member, batch | shown | {f"has_{modality}": ~there})
        with torch.no_grad():
            for parameter in member.encoders[modality].parameters():
                parameter.add_(1)
        assert torch.equal(logits(member, batch | shown | {f"has_{modality}": ~there}), alone)
        assert not torch.allclose(logits(member, batch | shown), alone)


def test_training_and_evaluation_put_the_same_embedding(member: FusionModel, batch: Batch) -> None:
    absent = torch.zeros(8, dtype=torch.bool)
    trained = member.train().encode("image", batch, absent)
    plain = member.eval().encode("image", batch, absent)
    assert torch.equal(trained.vector_BD, plain.vector_BD)
    assert torch.equal(trained.states_BTD[trained.mask_BT], plain.states_BTD[plain.mask_BT])
    assert torch.equal(trained.mask_BT.sum(1), plain.mask_BT.sum(1))


@pytest.mark.parametrize("training", [False, True], ids=["in evaluation", "in training"])
def test_an_absent_text_has_one_token_and_it_is_the_embedding(
    member: FusionModel, batch: Batch, training: bool
) -> None:
    encoded = member.train(training).encode("text", batch, batch["has_text"])
    assert batch["has_text"][6].item() is False
    assert encoded.mask_BT[6].tolist() == [True] + [False] * (encoded.mask_BT.shape[1] - 1)
    assert torch.equal(encoded.states_BTD[6, 0], member.missing["text"])
    assert torch.equal(encoded.vector_BD[6], member.missing["text"])
    assert torch.equal(encoded.mask_BT[0], batch["attention_mask"][0].bool())


def test_absent_pictures_do_not_bend_the_batch_norm(member: FusionModel, batch: Batch) -> None:
    flags = torch.tensor([True] * 4 + [False] * 4)
    states = []
    for filler in (0, 255):
        pixels = batch["pixels"].clone()
        pixels[~flags] = filler
        model = copy.deepcopy(member).train()
        model(**batch | {"pixels": pixels, "has_image": flags})
        states.append(model.encoders["image"].state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_an_example_alone_scores_as_in_a_batch(member: FusionModel, batch: Batch) -> None:
    together = logits(member, batch)
    for index in range(8):
        length = int(batch["attention_mask"][index].sum())
        alone = {name: tensor[index : index + 1] for name, tensor in batch.items()}
        alone |= {name: alone[name][:, :length] for name in ("input_ids", "attention_mask")}
        torch.testing.assert_close(logits(member, alone)[0], together[index], atol=1e-5, rtol=0)


def test_labels_do_not_change_the_logits(member: FusionModel, batch: Batch) -> None:
    without = {name: tensor for name, tensor in batch.items() if name != "labels"}
    assert member(**without).keys() == {"logits"}
    assert torch.equal(logits(member, without), logits(member, batch))


def test_the_loss_is_the_cross_entropy_with_soft_labels(member: FusionModel, batch: Batch) -> None:
    soft = batch["labels"] * 0.7 + 0.1
    expected = -(soft * logits(member, batch).log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(member(**batch | {"labels": soft})["loss"], expected)


def test_the_penalty_of_a_fusion_is_part_of_the_loss_in_training_alone(
    build: Build, fusion: Callable[..., Fusion], batch: Batch
) -> None:
    plain, dear = (
        build(fusion(fusion={"experts": 3, "chosen": 2, "balance": balance}), still=True) for balance in (0.0, 10.0)
    )
    assert torch.equal(plain(**batch)["loss"], dear(**batch)["loss"])
    with torch.no_grad():
        difference = dear.train()(**batch)["loss"] - plain.train()(**batch)["loss"]
    assert 10 * 0.99 < float(difference) < 10 * 3


def gradients(model: FusionModel, batch: Batch) -> dict[str, bool]:
    model.train()(**batch)["loss"].backward()
    return {name: p.grad is not None and bool(p.grad.abs().sum() > 0) for name, p in model.named_parameters()}


def test_every_weight_of_a_fusion_member_has_a_gradient(member: FusionModel, batch: Batch) -> None:
    torch.manual_seed(0)  # of dropout: a router that chooses a network for no row gives it no gradient
    reached = gradients(member, batch)
    still = {name for name, reaches in reached.items() if not reaches}
    # Attention's softmax does not see a shift of all keys, and no second segment is ever given.
    idle = {name for name, parameter in member.named_parameters() if not parameter.requires_grad}
    assert idle == (set(map("missing.{}".format, ("text", "image"))) if member.config.fusion == "late" else set())
    assert all(name.endswith("key.bias") for name in still - idle), still
    assert len(reached) > 60


def present(*columns: list[bool]) -> dict[str, Tensor]:
    return {name: torch.tensor(column) for name, column in zip(("text", "image"), columns, strict=False)}


def test_hiding_never_hides_all_and_never_shows_what_is_not_there() -> None:
    given = present([True, True, False, False] * 500, [True, False, True, False] * 500)
    kept = hide_some(given, 0.9)
    assert torch.equal(kept["text"] | kept["image"], given["text"] | given["image"])
    assert not any((kept[name] & ~given[name]).any() for name in given)


def test_hiding_is_drawn_for_each_example_and_modality() -> None:
    torch.manual_seed(0)
    kept = hide_some(present([True] * 20_000, [True] * 20_000), 0.3)
    both_hidden = 0.3 * 0.3  # then one of the two, at random, comes back
    for name in kept:
        assert float(kept[name].float().mean()) == pytest.approx(0.7 + both_hidden / 2, abs=0.015)
    assert float((kept["text"] & kept["image"]).float().mean()) == pytest.approx(0.7 * 0.7, abs=0.015)


def test_a_probability_of_zero_hides_nothing() -> None:
    given = present([True] * 50, [True] * 50)
    assert hide_some(given, 0.0) is given


def test_the_only_modality_is_never_hidden() -> None:
    given = present([True] * 50)
    assert hide_some(given, 0.9) is given


def test_nothing_is_hidden_in_evaluation(build: Build, fusion: Callable[..., Fusion], batch: Batch) -> None:
    hiding, plain = build(fusion(modality_dropout=0.9)), build(fusion())
    assert torch.equal(logits(hiding, batch), logits(plain, batch))


def test_modality_dropout_hides_in_training(build: Build, fusion: Callable[..., Fusion], batch: Batch) -> None:
    model = build(fusion(modality_dropout=0.9)).train()
    torch.manual_seed(0)
    assert not torch.equal(logits(model, batch), logits(model, batch))


def test_a_batch_with_one_picture_can_be_trained_on(member: FusionModel, batch: Batch) -> None:
    one = torch.tensor([True] + [False] * 7)
    before = member.encoders["image"].backbone.bn1.running_mean.clone()
    loss = member.train()(**batch | {"has_image": one})["loss"]
    assert torch.isfinite(loss)
    assert torch.equal(member.encoders["image"].backbone.bn1.running_mean, before)
    assert all(module.training for module in member.modules())


def test_a_frozen_encoder_stays_as_in_evaluation_while_the_rest_trains(build, fusion, batch) -> None:
    model = build(fusion())
    model.encoders["image"].requires_grad_(False)
    model.train()
    before = {name: buffer.clone() for name, buffer in model.encoders["image"].named_buffers()}
    model(**batch)
    assert model.encoders["text"].training
    assert not model.encoders["image"].training
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.encoders["image"].named_buffers())
