"""What training does not compute twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fuseline.config import Encoders, Member, Train
from fuseline.models.member import FusionModel
from fuseline.tasks.classification import Classification
from fuseline.training import session
from fuseline.training.checkpoints import load_member
from fuseline.training.session import encode_still, train_member
from tests.conftest import LABELS
from tests.training.test_trainer import COMMON

Recipe, Build = Callable[..., Any], Callable[..., FusionModel]
STILL = {"tuning": {"text": "frozen", "image": "full"}, "learning_rate": {"text": None, "image": 1e-3, "head": 1e-2}}


@pytest.fixture
def train(
    prepared: Path, encoders: Encoders, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[FusionModel, list[int]]]:
    """Give a training of a recipe: what came of it, and how many texts each call of the text encoder had."""
    monkeypatch.setenv("FUSELINE_CACHE", str(tmp_path / "cache"))

    def run(recipe: Member, name: str = "tiny", common: Train = COMMON) -> tuple[FusionModel, list[int]]:
        model, calls, folder = build(recipe), list[int](), tmp_path / name
        model.encoders["text"].register_forward_hook(lambda _, given, out: calls.append(len(out.vector_BD)))
        folder.mkdir()
        train_member(name, model, recipe, Classification(LABELS), encoders, common, prepared, folder)
        return load_member(folder), calls

    return run


def test_a_frozen_encoder_sees_each_row_once(train: Callable[..., Any], fusion: Recipe) -> None:
    texts, final = 21 + 8, 9  # of training and validation rows; and all validation rows when all is done
    assert sum(train(fusion(epochs=3, **STILL))[1]) == texts + final
    assert sum(train(fusion(epochs=3, **STILL, dropout=0.1), "again")[1]) == final


def test_training_on_kept_vectors_comes_to_the_same(
    train: Callable[..., Any], fusion: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = fusion(fusion="gated", modality_dropout=0.3, **STILL)
    kept, _ = train(recipe, "kept")
    monkeypatch.setattr(session, "encode_still", lambda *_: {})
    plain, calls = train(recipe, "plain")
    assert len(calls) > 6
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(kept.state_dict()[name], tensor, atol=1e-4, rtol=1e-3)
    first, second = (np.load(Path(model.name_or_path) / "validation.npy") for model in (kept, plain))
    np.testing.assert_allclose(first, second, atol=1e-3)


ALL_STILL = {
    "tuning": {"text": "frozen", "image": "frozen"}, "learning_rate": {"text": None, "image": None, "head": 1e-2}
}  # fmt: skip
AS_IT_IS = dict.fromkeys(("flip", "degrees", "translate", "scale", "color", "erase", "mixup"), 0.0)


@pytest.mark.parametrize(
    ("changes", "modality"),
    [
        ({"tuning": {"text": {"layers": 1}, "image": "frozen"},
          "learning_rate": {"text": 1e-3, "image": None, "head": 1e-2}}, "text"),
        (ALL_STILL | {"augment": {"text": {"drop": 0.2, "swap": 0.0}}}, "text"),
        (ALL_STILL | {"augment": {"image": AS_IT_IS | {"flip": 0.5}}}, "image"),
        (ALL_STILL | {"augment": {"image": AS_IT_IS | {"mixup": 0.4}}}, "image"),
    ],
    ids=["the last layer is trained", "words change", "pictures change", "pictures are mixed"],
)  # fmt: skip
def test_what_changes_from_epoch_to_epoch_is_not_kept(
    changes: dict[str, Any], modality: str, fusion: Recipe, build: Build, read: Callable[..., Any], modalities: Any
) -> None:
    recipe, rows = fusion(**changes), read()
    rows.changes = session.build_changes(modalities, recipe.augment)
    plain = session.Collator({name: each.reader for name, each in modalities.items()}, 3)
    sizes = encode_still(build(recipe), recipe, plain, [rows])
    assert set(sizes) == set(rows.encoded) == {"text", "image"} - {modality}
