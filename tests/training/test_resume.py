"""A training that was cut short goes on to the same weights to the last bit, and never with what is not its own."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fuseline.config import Member, Train
from fuseline.inputs.base import Reader
from fuseline.models.member import FusionModel
from fuseline.records import Epoch, files_of
from fuseline.tasks.classification import Classification
from fuseline.training import resume
from fuseline.training.examples import Collator, Examples
from fuseline.training.modalities.base import Modality
from fuseline.training.session import build_changes
from fuseline.training.targets import TrainingCollator
from fuseline.training.trainer import MemberTrainer, fit, score_by, set_up
from fuseline.training.tuning import tune
from tests.conftest import LABELS

COMMON = Train(seed=0, threads=1, precision="fp32", device="cpu", processes=1, length_pool=2, checkpoint_steps=2)
AUGMENT = {"flip": 0.5, "degrees": 20, "translate": 0.1, "scale": 0.1, "color": 0.2, "erase": 0.1, "mixup": 0.5}
LORA = {"rank": 2, "alpha": 4.0, "dropout": 0.2, "targets": "all"}


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    set_up(COMMON)
    yield
    torch.use_deterministic_algorithms(False)


Fit = Callable[..., tuple[FusionModel, list[Epoch]]]


@pytest.fixture
def train(
    build: Callable[..., FusionModel],
    read: Callable[..., Examples],
    readers: dict[str, Reader],
    modalities: dict[str, Modality],
) -> Fit:
    """Give the trainer of a new member, with a folder of checkpoints."""

    def run(recipe: Member, folder: Path) -> tuple[FusionModel, list[Epoch]]:
        model, plain = build(recipe), Collator(readers, 3)
        tune(model, recipe)
        train, val = (read(split, only=recipe.modalities) for split in ("train", "val"))
        train.changes = build_changes(modalities, recipe.augment)
        return model, fit(
            "tiny",
            model,
            recipe,
            score_by(Classification(LABELS), model),
            COMMON,
            train,
            val,
            TrainingCollator(plain, recipe, None),
            plain,
            folder,
        )

    return run


class CutError(Exception):
    """Training ends here."""


def cut(run: Callable[[], Any], after: int) -> None:
    """Run a training until it has taken some steps, and has not yet done the next."""
    taken, plain = [0], MemberTrainer.training_step

    def step(*arguments: Any, **keys: Any) -> Any:
        if taken[0] == after:
            raise CutError
        taken[0] += 1
        return plain(*arguments, **keys)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemberTrainer, "training_step", step)
        with pytest.raises(CutError):
            run()


RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "text with early stopping": ("text", {"dropout": 0.3, "epochs": 4, "patience": 2, "schedule": "cosine",
                                          "learning_rate": {"encoder": 0.01, "head": 0.1}}),
    "text with adapters": ("text", {"tuning": LORA, "epochs": 3}),
    "text with changed words": ("text", {"augment": {"text": {"drop": 0.3, "swap": 0.3}}, "epochs": 3,
                                         "optimizer": {"momentum": 0.9, "nesterov": True}}),
    "pictures, changed and mixed": ("image", {"dropout": 0.3, "epochs": 3, "augment": {"image": AUGMENT}}),
    "a fusion member": ("fusion", {"dropout": 0.3, "modality_dropout": 0.4, "epochs": 3, "patience": 1,
                                   "augment": {"image": AUGMENT}}),
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_training_that_was_cut_short_ends_as_one_that_was_not(
    name: str, after: int, train: Fit, expert: Callable[..., Any], fusion: Callable[..., Any], tmp_path: Path
) -> None:
    kind, keys = RECIPES[name]
    recipe = fusion(**keys) if kind == "fusion" else expert(kind, **keys)
    model, curve = train(recipe, tmp_path / "whole")
    torch.manual_seed(5)
    cut(lambda: train(recipe, tmp_path / "cut"), after)
    assert (resume.latest(tmp_path / "cut") is not None) == (after > 1)
    torch.manual_seed(6)
    again, curve_again = train(recipe, tmp_path / "cut")
    found, expected = again.state_dict(), model.state_dict()
    assert [key for key in expected if not torch.equal(found[key], expected[key])] == []
    assert curve_again == curve


@pytest.mark.parametrize("patience", [None, 1])
def test_a_training_that_was_over_is_not_trained_on(
    patience: int | None, train: Fit, expert: Callable[..., Any], tmp_path: Path
) -> None:
    keys = {"epochs": 3} if patience is None else {"epochs": 30, "batch_size": 2, "patience": patience}
    recipe = expert(learning_rate={"encoder": 0.03, "head": 0.3}, **keys)
    model, curve = train(recipe, tmp_path)
    assert (len(curve) < recipe.epochs) == (patience is not None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemberTrainer, "train", lambda *_, **__: pytest.fail("trained on"))
        again, curve_again = train(recipe, tmp_path)
    assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in model.state_dict().items())
    assert curve_again == curve


def test_a_checkpoint_that_was_cut_short_is_not_gone_on_with(tmp_path: Path) -> None:
    for number in (2, 10, 12):
        (tmp_path / f"checkpoint-{number}").mkdir()
    for number in (2, 10):
        resume.mark(tmp_path / f"checkpoint-{number}", 0.1, 0)
    assert resume.latest(tmp_path) == tmp_path / "checkpoint-10"
    assert not (tmp_path / "checkpoint-12").exists()


def test_a_mark_that_was_cut_short_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoint-2").mkdir()

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        resume.mark(tmp_path / "checkpoint-2", 0.1, 0)
    assert resume.latest(tmp_path) is None


def test_a_mark_keeps_a_loss_that_diverged(tmp_path: Path) -> None:
    resume.mark(tmp_path, math.nan, 3)
    loss, logged_at = resume.read_mark(tmp_path)
    assert math.isnan(loss)
    assert logged_at == 3


def test_the_key_tells_apart_all_that_a_result_depends_on(
    build: Callable[..., FusionModel], expert: Callable[..., Any], prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, model = files_of(prepared / "train"), build(expert())

    def key(model: FusionModel = model, data: list[Path] = data, told: Any = 1) -> str:
        return resume.key_of(model, data, {"told": told})

    tuned = build(expert())
    tune(tuned, expert(tuning="bitfit"))
    keys = [
        key(), key(told=2), key(data=data[:1]), key(data=[*data, *files_of(prepared / "val")]), key(tuned),
        key(build(expert(), seed=1)), key(build(expert(dropout=0.1))), key(build(expert("image"))),
    ]  # fmt: skip
    monkeypatch.setattr(resume.cache, "code_of", lambda *_: "edited")
    keys.append(key())
    monkeypatch.setattr(resume.cache, "versions_of", lambda *_: "newer")
    keys.append(key())
    assert len(set(keys)) == len(keys)
    monkeypatch.undo()
    assert key() == key(build(expert())) == keys[0]


def test_checkpoints_go_when_the_block_ends_well_and_stay_when_it_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSELINE_CACHE", str(tmp_path))
    folder = tmp_path / "training/a"

    def fail() -> None:
        with resume.keep("a", first=True) as given:
            assert given == folder
            (given / "checkpoint-1").mkdir()
            raise CutError

    with pytest.raises(CutError):
        fail()
    with resume.keep("b", first=True) as other:
        assert list(other.glob("checkpoint-*")) == []
    assert not other.exists()
    with resume.keep("a", first=True) as again:
        assert again == folder
        assert (again / "checkpoint-1").is_dir()
    assert not folder.exists()


def test_checkpoints_that_were_forgotten_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSELINE_CACHE", str(tmp_path))
    old, recent = tmp_path / "training/old", tmp_path / "training/recent"
    for folder in (old, recent):
        (folder / "checkpoint-1").mkdir(parents=True)
    os.utime(old, (time.time() - resume.FORGOTTEN_S - 60,) * 2)
    with resume.keep("a", first=True):
        assert not old.exists()
    assert recent.exists()
