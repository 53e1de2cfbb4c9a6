"""Trackers see a training where the environment asks for them, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fuseline.config import Member, Train
from fuseline.errors import ConfigError
from fuseline.inputs.base import Reader
from fuseline.models.member import FusionModel
from fuseline.tasks.classification import Classification
from fuseline.training.examples import Collator, Examples
from fuseline.training.targets import TrainingCollator
from fuseline.training.trackers import FOLDER, NAMES, SERVER, build_trackers
from fuseline.training.trainer import fit, score_by
from tests.conftest import LABELS

COMMON = Train(seed=0, threads=1, precision="fp32", device="cpu", processes=1, length_pool=None, checkpoint_steps=None)


@pytest.fixture
def train(
    build: Callable[..., FusionModel], read: Callable[..., Examples], readers: dict[str, Reader],
    expert: Callable[..., Member], tmp_path: Path,
) -> Callable[[], None]:  # fmt: skip
    """Give the training of a member over two epochs."""

    def run() -> None:
        member = expert(epochs=2)
        model, plain = build(member), Collator(readers, 3)
        train, val = (read(split, only=member.modalities) for split in ("train", "val"))
        collate = TrainingCollator(plain, member, None)
        score = score_by(Classification(LABELS), model)
        fit("train tiny", model, member, score, COMMON, train, val, collate, plain, tmp_path / "checkpoints")

    return run


def test_nobody_watches_unless_asked(
    train: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "logs"))
    train()
    assert not (tmp_path / "logs").exists()


def test_tensorboard_gets_the_curves_of_a_training(
    train: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setenv(NAMES, "tensorboard")
    monkeypatch.setenv(FOLDER, str(tmp_path / "logs"))
    train()
    (folder,) = (tmp_path / "logs" / "train-tiny").iterdir()
    events = accumulator.EventAccumulator(str(folder)).Reload()
    for curve in ("train/loss", "eval/loss", "eval/accuracy"):
        assert len(events.Scalars(curve)) == 2


def test_mlflow_gets_a_run_with_its_settings_and_curves(
    train: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv(NAMES, "mlflow")
    uri = (tmp_path / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database takes ten seconds to set up
    monkeypatch.setenv(SERVER, uri)
    train()
    client = mlflow.MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs(["0"])
    assert (run.info.run_name, run.info.status) == ("train tiny", "FINISHED")
    assert run.data.params["num_train_epochs"] == "2"
    assert len(client.get_metric_history(run.info.run_id, "eval_loss")) == 2


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ("tensorbord", "unknown tracker 'tensorbord'; expected some of tensorboard, mlflow"),
        ("mlflow", f"{SERVER}: not set"),
        ("mlflow at sqlite:///mlflow.db", f"{SERVER}: sqlite:///mlflow.db; say where"),
        ("mlflow at ./mlruns", f"{SERVER}: ./mlruns; say where"),
    ],
)
def test_what_cannot_be_asked_is_told(asked: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker, _, place = asked.partition(" at ")
    monkeypatch.setenv(NAMES, tracker)
    monkeypatch.setenv(SERVER, place)
    with pytest.raises(ConfigError, match=why):
        build_trackers("train tiny")


def test_a_tracker_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAMES, "mlflow")
    monkeypatch.setattr("fuseline.training.trackers.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="mlflow is not installed; `make install` brings it"):
        build_trackers("train tiny")
