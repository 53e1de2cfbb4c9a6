"""Joint pre-training: from prepared rows to encoders that members start from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fuseline import config
from fuseline.errors import DataError, ModelError
from fuseline.models.member import FusionModel
from fuseline.training import pretraining
from fuseline.training.modalities import text as texts
from fuseline.training.modalities.hub import digest_model
from fuseline.training.pretraining import pretrain, start_encoders
from fuseline.training.trainer import MemberTrainer, set_up

CHANCE = 1 / 9
COMMON = config.Train(seed=0, threads=1, precision="fp32", device="cpu", processes=1, checkpoint_steps=2, length_pool=2)


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    set_up(COMMON)
    yield
    torch.use_deterministic_algorithms(False)


def settings(**changes: Any) -> config.Pretrain:
    """Write a recipe; keywords replace keys."""
    own = {
        "modalities": ["text", "image"], "objectives": {"contrast": 1.0, "match": 0.5, "masked_words": 0.5},
        "hidden": 16, "heads": 2, "mask": 0.3, "learning_rate": {"text": 3e-3, "image": 3e-3, "head": 3e-3},
        "optimizer": {"betas": [0.9, 0.999], "eps": 1e-8}, "weight_decay": 0.0, "max_grad_norm": 1.0, "epochs": 30,
        "batch_size": 12, "accumulation": 1, "warmup": 0.1, "schedule": "linear", "patience": None, "augment": {},
    }  # fmt: skip
    return config.Pretrain.model_validate(own | changes)


def test_texts_find_their_pictures_better_than_by_chance(
    prepared: Path, encoders: config.Encoders, tmp_path: Path
) -> None:
    alone = settings(objectives={"contrast": 1.0, "match": 0.0, "masked_words": 0.0}, mask=0.0)
    epochs = pretrain(alone, encoders, COMMON, prepared, tmp_path)
    assert len(epochs) == 30
    assert epochs[-1].train_loss < 0.8 * epochs[0].train_loss
    assert epochs[-1].val_score > 1.5 * CHANCE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.safetensors", "text.safetensors"]


def test_members_start_from_what_it_left(
    prepared: Path, encoders: config.Encoders, build: Callable[..., FusionModel], expert: Callable[..., Any],
    tmp_path: Path,
) -> None:  # fmt: skip
    pretrain(settings(epochs=1), encoders, COMMON, prepared, tmp_path)
    member = build(expert("image"))
    before = {name: tensor.clone() for name, tensor in member.encoders["image"].state_dict().items()}
    start_encoders(member, tmp_path)
    after, left = member.encoders["image"].state_dict(), load_file(tmp_path / "image.safetensors")
    assert all(torch.equal(after[name], left[name]) for name in after)
    assert any(not torch.equal(after[name], before[name]) for name in after)


def test_members_start_as_loaded_where_it_left_nothing(
    build: Callable[..., FusionModel], expert: Callable[..., Any], tmp_path: Path
) -> None:
    member, other = build(expert("text")), build(expert("text"))
    start_encoders(member, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(member.parameters(), other.parameters(), strict=True))


def test_one_that_was_cut_short_goes_on_to_the_same_weights(
    prepared: Path, encoders: config.Encoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    recipe = settings(epochs=3)
    pretrain(recipe, encoders, COMMON, prepared, whole)
    taken, plain = [0], MemberTrainer.training_step

    def step(*args: Any, **options: Any) -> Any:
        taken[0] += 1
        if taken[0] == 5:
            raise KeyboardInterrupt
        return plain(*args, **options)

    monkeypatch.setattr(MemberTrainer, "training_step", step)
    with pytest.raises(KeyboardInterrupt):
        pretrain(recipe, encoders, COMMON, prepared, cut)
    monkeypatch.setattr(MemberTrainer, "training_step", plain)
    pretrain(recipe, encoders, COMMON, prepared, cut)
    for name in ("text", "image"):
        one, other = (load_file(folder / f"{name}.safetensors") for folder in (whole, cut))
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_model_without_a_mask_is_refused_by_name(
    prepared: Path, encoders: config.Encoders, text_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "no-mask"
    shutil.copytree(text_folder, folder)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            found = json.loads((folder / name).read_text())
            found.pop("mask_token", None)
            (folder / name).write_text(json.dumps(found | ({"tokenizer_class": "PreTrainedTokenizerFast"}
                                                           if name == "tokenizer_config.json" else {})))  # fmt: skip
    text = encoders.text.model_copy(update={"name": str(folder), "revision": digest_model(folder)})
    with pytest.raises(ModelError, match="no mask for hidden words; set pretrain.objectives.masked_words and"):
        texts.find_mask(text)
    off = settings(objectives={"contrast": 1.0, "match": 0.0, "masked_words": 0.0}, mask=0.0, epochs=1)
    pretrain(off, encoders.model_copy(update={"text": text}), COMMON, prepared, tmp_path)
    assert (tmp_path / "text.safetensors").is_file()


def test_rows_without_pairs_are_refused(
    prepared: Path, encoders: config.Encoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        pretraining.Examples, "present", lambda self: {name: [False] * len(self) for name in ("text", "image")}
    )
    with pytest.raises(DataError, match=r"train: expected 2 or more rows with text and image; found 0"):
        pretrain(settings(), encoders, COMMON, prepared, tmp_path)
