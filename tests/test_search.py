"""A search finds better numbers, prunes, keeps its budget, and goes on after a kill; the stage repeats its best."""

from __future__ import annotations

import copy
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import Result
from safetensors.torch import save_file
from typer.testing import CliRunner

from fuseline import config
from fuseline.cli import app
from fuseline.errors import ConfigError, ModelError
from fuseline.lineage.dvc import dvc
from fuseline.overlay import lay
from fuseline.records import History
from fuseline.search import study as module
from fuseline.search.run import search, stages_before
from fuseline.search.space import check_space, find_present, get, nest, put
from fuseline.stages import fuse, train
from fuseline.tasks.classification import Classification
from fuseline.training.pretrained import build_member
from fuseline.training.pretraining import SUFFIX
from tests.training.test_pretraining import settings

ROOT = Path(__file__).parents[1]
RATE = "members.experts.text.learning_rate.encoder"
SPACE = {
    "member": "text", "metric": "loss", "startup_trials": 2, "warmup_epochs": 1,
    "space": {
        RATE: {"low": 1e-6, "high": 0.1, "log": True},
        "members.experts.text.batch_size": {"low": 4, "high": 12, "log": False},
        "members.experts.text.optimizer": {"choices": [{"betas": [0.9, 0.999], "eps": 1e-8},
                                                       {"momentum": 0.9, "nesterov": False}]},
    },
}  # fmt: skip
Write = Callable[..., Path]


@pytest.fixture
def folder(
    encoders: config.Encoders, labels: list[str], prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Give a repository with tiny params.yaml and prepared rows, and work in it."""
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    document["task"]["labels"] = labels
    document["encoders"] = encoders.model_dump(mode="json")
    document["train"] |= {"threads": 1, "device": "cpu", "checkpoint_steps": 1}
    document["members"]["experts"]["text"] |= {
        "epochs": 3, "batch_size": 8, "patience": None, "learning_rate": {"encoder": 1e-3, "head": 1e-2}
    }  # fmt: skip
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document))
    (tmp_path / "build").mkdir()
    (tmp_path / "build/prepare").symlink_to(prepared)
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FUSELINE_CACHE", str(tmp_path / "cache"))
    yield tmp_path
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def write(folder: Path) -> Write:
    """Give the writer of a search; keywords replace keys."""

    def space(**changes: Any) -> Path:
        (folder / "space.yaml").write_text(yaml.safe_dump(copy.deepcopy(SPACE) | changes))
        return folder / "space.yaml"

    return space


def run(space: Path, trials: int, seconds: float | None = None) -> module.Found:
    return search(Path("params.yaml"), space, trials, seconds)


@pytest.fixture
def tracked(folder: Path, prepared: Path) -> None:
    """Have DVC make the prepared rows, for the labels that params.yaml has."""
    (folder / "build/prepare").unlink()
    stage = {"cmd": f"cp -R {prepared} build/prepare", "params": ["task.labels"], "outs": ["build/prepare"]}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"prepare": stage}}))
    dvc(folder, "init", "--quiet")
    dvc(folder, "repro", "--quiet", "prepare")


def tune(space: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["tune", str(space), *options])


@pytest.mark.usefixtures("tracked")
def test_the_best_values_make_the_same_training_of_the_stage(write: Write, folder: Path) -> None:
    space = write()
    done = tune(space, "--trials", "5", "--output", "best.yaml")
    assert done.exit_code == 0, done.output
    found = run(space, 5)  # nothing is left to do
    assert found.trials == 5
    assert found.before is not None
    assert found.value <= found.before
    lay(folder / "params.yaml", folder / "best.yaml")
    params = config.load()
    assert all(get(config.read(Path("params.yaml")), key) == value for key, value in found.best.items())
    train.main(params, "text")
    assert History.read(Path("build/train/experts/text/history.json")).epochs[-1].val_loss == found.value
    assert not list((folder / ".fuseline/tune").glob("trial-*"))
    assert not list((folder / "cache/training").glob("*"))


def test_a_search_goes_on_from_where_it_stood_and_counts_what_was_done(write: Write) -> None:
    space = write()
    first, more = run(space, 2), run(space, 4)
    assert (first.trials, more.trials, first.name) == (2, 4, more.name)
    assert more.value <= first.value
    drawn = {tuple(map(str, trial.params.values())) for trial in trials_of(first.name)}
    assert len(drawn) == 4


def trials_of(name: str) -> list[Any]:
    return module.optuna.load_study(study_name=name, storage=f"sqlite:///{module.TRIALS}").trials


def test_a_killed_search_tries_again_what_it_was_at_and_its_training_goes_on(
    write: Write, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = write()
    document = put(config.read(Path("params.yaml")), {"members.experts.text.epochs": 30})
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    code = "from fuseline.search.run import search; search(Path('params.yaml'), Path(sys.argv[1]), 1, None)"
    command = [sys.executable, "-c", f"import sys; from pathlib import Path; {code}", str(space)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((folder / "cache/training").glob("*/checkpoint-[4-9]/complete.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with sqlite3.connect(module.TRIALS) as trials:
        assert trials.execute("select state from trials").fetchall() == [("RUNNING",)]
    found = run(space, 1)
    assert "training goes on after step" in capsys.readouterr().err
    assert (found.trials, found.before) == (1, found.value)
    cut, again = trials_of(found.name)
    assert cut.state.name == "FAIL"
    assert again.params == cut.params
    assert sorted(again.intermediate_values) == list(range(1, 31))


def test_the_time_of_a_call_ends_it_within_a_trial_and_the_next_call_goes_on(write: Write) -> None:
    space = write()
    with pytest.raises(ModelError, match="no trial has come to an end yet"):
        run(space, 3, seconds=0.01)
    assert run(space, 1).trials == 1


def test_a_trial_that_is_worse_than_the_median_is_pruned(write: Write) -> None:
    ranges = {RATE: {"choices": [1e-3, 1e-9]}, "members.experts.text.learning_rate.head": {"choices": [1e-2, 1e-9]}}
    found = run(write(space=ranges, startup_trials=1), 8)
    assert found.pruned > 0
    pruned = [trial for trial in trials_of(found.name) if trial.state.name == "PRUNED"]
    assert {max(trial.intermediate_values) for trial in pruned} == {
        2
    }  # after the one epoch of warm-up, before the last
    assert found.best == {RATE: 1e-3, "members.experts.text.learning_rate.head": 1e-2}


def test_much_of_the_score_is_sought_where_it_is_asked_for(write: Write) -> None:
    ranges = {"members.experts.text.epochs": {"choices": [1, 12]}}
    found = run(write(space=ranges, metric="score", startup_trials=9), 5)
    values = [trial.value for trial in trials_of(found.name)]
    assert found.value == max(values) > min(values)


def test_values_that_do_not_fit_each_other_are_no_trial_that_counts_as_good(write: Write) -> None:
    ranges = {
        "members.experts.text.batch_size": {"choices": [1, 8]},
        "members.experts.text.accumulation": {"choices": [1, 2]},
    }
    found = run(write(space=ranges), 9)
    refused = [trial for trial in trials_of(found.name) if module.WHY in trial.user_attrs]
    assert refused
    assert all("accumulation is 2" in trial.user_attrs[module.WHY] for trial in refused)
    assert found.trials == 9


def test_a_trial_that_cannot_be_trained_is_recorded_with_its_reason_and_not_tried_again(write: Write) -> None:
    ranges = {"members.experts.text.tuning": {"choices": ["full", {"layers": 9}]}}
    found = run(write(space=ranges), 6)
    assert found.trials == 6
    assert found.best == {"members.experts.text.tuning": "full"}
    failed = [trial for trial in trials_of(found.name) if module.WHY in trial.user_attrs]
    assert failed
    assert all("layers is 9, the encoder has 1" in trial.user_attrs[module.WHY] for trial in failed)
    assert len(trials_of(found.name)) == 6


def test_where_all_trials_fail_the_reason_is_told(write: Write) -> None:
    ranges = {"members.experts.text.tuning": {"choices": [{"layers": 8}, {"layers": 9}]}}
    with pytest.raises(ModelError, match=r"no trial has come to an end.*the encoder has 1"):
        run(write(space=ranges), 2)


@pytest.mark.usefixtures("tracked")
def test_rows_that_were_prepared_by_other_params_are_refused(write: Write, folder: Path) -> None:
    document = config.read(Path("params.yaml"))
    document["task"]["labels"] = document["task"]["labels"][::-1]
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    done = tune(write(), "--trials", "1")
    assert done.exit_code == 1
    said = " ".join(done.output.split())
    assert "prepare: task.labels modified" in said
    assert "run `dvc repro prepare`" in said


def test_a_soup_is_not_searched_for(write: Write, folder: Path) -> None:
    document = put(config.read(Path("params.yaml")), {"members.experts.text.soup": {"seeds": 2}})
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigError, match="text is a soup of trainings"):
        run(write(), 1)


def test_all_that_a_member_starts_from_is_to_be_up_to_date(folder: Path) -> None:
    params = config.load()
    assert stages_before(params, "text") == ["prepare"]
    assert stages_before(params, "fusion") == ["prepare", "train@image"]
    assert stages_before(params.model_copy(update={"pretrain": settings()}), "text") == ["prepare", "pretrain"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"member": "sound"}, "'sound' is none of all-words, fusion, image, text"),
        ({"space": {"members.experts.text.epoch": {"low": 1, "high": 2, "log": False}}}, "epoch: params.yaml has no"),
        ({"space": {"prepare.val": {"low": 0.1, "high": 0.2, "log": False}}}, "no number of text's training"),
        ({"space": {"members.experts.text.soup": {"choices": [None, {"seeds": 2}]}}}, "tries single trainings"),
        ({"space": {"encoders.image.size": {"low": 24, "high": 32, "log": False}}}, "text has no image encoder"),
        (
            {"member": "fusion", "space": {"encoders.image.size": {"low": 24, "high": 32, "log": False}}},
            "fusion starts from the encoder of image",
        ),
        ({"space": {RATE: {"low": 2.0, "high": 1.0, "log": False}}}, "expected less than high"),
        ({"space": {RATE: {"low": 0.0, "high": 1.0, "log": True}}}, "must be above 0"),
        ({"space": {RATE: {"low": -1.0, "high": 1.0, "log": False}}}, r"-1\.0 does not fit"),
        ({"space": {RATE: {"choices": [1.0]}}}, "at least 2"),
        ({"trials": 3}, "trials: unknown key"),
    ],
)
def test_a_search_that_does_not_fit_is_refused(changes: dict[str, Any], why: str, write: Write) -> None:
    with pytest.raises(ConfigError, match=why):
        run(write(**changes), 1)


def test_a_fusion_member_starts_from_the_experts_as_its_stage_does(write: Write, folder: Path) -> None:
    ranges = {"members.fusions.fusion.hidden": {"low": 4, "high": 12, "log": False}}
    values = {"epochs": 2, "batch_size": 8, "patience": None, "hidden": 8}
    document = put(
        config.read(Path("params.yaml")), {f"members.fusions.fusion.{key}": value for key, value in values.items()}
    )
    document["members"]["experts"]["image"]["epochs"] = 1
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    space = write(member="fusion", space=ranges)
    with pytest.raises(ModelError, match=r"image/model\.safetensors: not found"):
        run(space, 1)
    train.main(config.load(), "image")
    found = run(space, 1)
    fuse.main(config.load(), "fusion")
    history = History.read(Path("build/train/fusions/fusion/history.json"))
    assert history.epochs[-1].val_loss == found.value == found.before


def test_pretrained_encoders_are_started_from_as_the_stage_does(write: Write, folder: Path, encoders: Any) -> None:
    plain = run(write(), 1)
    document = config.read(Path("params.yaml")) | {"pretrain": settings().model_dump(mode="json", exclude_unset=True)}
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    (folder / "build/pretrain").mkdir()
    for modality in ("text", "image"):
        recipe = config.load().members.experts[modality]
        model = build_member(recipe, encoders, Classification(config.load().task.labels), seed=5)
        weights = {name: 2 * tensor for name, tensor in model.encoders[modality].state_dict().items()}
        save_file(weights, folder / f"build/pretrain/{modality}{SUFFIX}")
    found = run(write(), 1)
    assert found.name != plain.name
    train.main(config.load(), "text")
    history = History.read(Path("build/train/experts/text/history.json"))
    assert history.epochs[-1].val_loss == found.value != plain.value


def test_encoders_that_were_pretrained_are_not_searched_for(write: Write, folder: Path) -> None:
    document = config.read(Path("params.yaml")) | {"pretrain": settings().model_dump(mode="json", exclude_unset=True)}
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    space = write(space={"encoders.text.max_length": {"low": 4, "high": 12, "log": False}})
    with pytest.raises(ConfigError, match="encoders were pre-trained as params"):
        run(space, 1)


def test_two_searches_do_not_run_at_once(write: Write) -> None:
    with module.alone(), pytest.raises(ConfigError, match="another search runs here"):
        run(write(), 1)


def test_other_params_other_data_or_another_range_begin_anew(write: Write, folder: Path) -> None:
    def name() -> str:
        document = config.read(Path("params.yaml"))
        return module.name_study(config.load(), config.load_search(Path("space.yaml")), document)

    def change(key: str, value: Any) -> None:
        Path("params.yaml").write_text(yaml.safe_dump(put(config.read(Path("params.yaml")), {key: value})))

    write()
    first = name()
    change(RATE, 0.5)  # is searched for
    change("members.experts.image.epochs", 77)
    assert name() == first
    names = {first}
    for key, value in {"members.experts.text.epochs": 9, "train.seed": 5, "train.length_pool": 5,
                       "encoders.text.max_length": 5}.items():  # fmt: skip
        change(key, value)
        names.add(name())
    write(metric="score")
    names.add(name())
    assert len(names) == 6


def test_the_search_that_comes_along_fits_params_yaml() -> None:
    path = ROOT / "examples/tune-text.yaml"
    wanted, document = config.load_search(path), config.read(ROOT / "params.yaml")
    check_space(path, ROOT / "params.yaml", document, config.load(ROOT / "params.yaml"), wanted)
    assert find_present(wanted, document) is not None


def test_dotted_keys_become_an_overlay() -> None:
    assert nest({"a.b": 1, "a.c": [2], "d": None}) == {"a": {"b": 1, "c": [2]}, "d": None}
