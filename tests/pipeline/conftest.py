"""A whole project in miniature: the real dvc.yaml, flow and code on tens of examples."""

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from PIL import Image

from fuseline.data.shards import SCHEMA, write_data_set
from fuseline.training.modalities.hub import digest_model

ROOT = Path(__file__).parents[2]
LABELS = ["circle", "square", "star"]
PARTS = ["src", "flows", "dvc.yaml", "start.json", "requirements.lock", ".dvcignore", ".gitignore", "pyproject.toml"]
TRAINING = {"epochs": 1, "batch_size": 16, "patience": None, "augment": {}}


def picture(label: str, seed: int) -> dict[str, object]:
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 60, size=(20, 20, 3), dtype=np.uint8)
    pixels[..., LABELS.index(label)] += 180
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def examples(count: int) -> pa.Table:
    rows = []
    for number in range(count):
        label = LABELS[number % 3]
        rows.append({
            "id": f"e{number}", "group": f"g{number}", "text": f"a {label} drawn by hand {number}",
            "image": picture(label, number), "target": label, "meta": "{}", "source": "test",
        })  # fmt: skip
    for number in range(0, count, 7):
        rows[number]["image"] = None
    return pa.Table.from_pylist(rows, SCHEMA)


def edit(path: Path, **changes: object) -> None:
    """Set dotted keys (with __ for the dot) of a YAML file."""
    document = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        node = document
        *parents, last = key.split("__")
        for parent in parents:
            node = node[parent]
        node[last] = value
    path.write_text(yaml.safe_dump(document, sort_keys=False))


def environment(repo: Path) -> dict[str, str]:
    """Return the environment of a user in the project, whose own configuration does not reach it."""
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{repo / 'src'}{os.pathsep}{repo}",
        "HOME": str(repo.parent / "home"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "PREFECT_HOME": str(repo.parent / "prefect"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
    }


def shell(repo: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user would in the project."""
    return subprocess.run(
        command, cwd=repo, env=environment(repo), capture_output=True, text=True, check=False, timeout=800
    )


def retrain(repo: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return shell(repo, sys.executable, "-m", "flows.retrain", *arguments)


def git(repo: Path, *arguments: str) -> str:
    done = shell(repo, "git", "-c", "user.name=Test", "-c", "user.email=test@localhost", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def commit(repo: Path, message: str) -> None:
    git(repo, "add", "--all")
    git(repo, "commit", "--quiet", "-m", message)


def make_project(folder: Path, text_folder: Path) -> Path:
    """Make a repository with a data set of 90 rows under DVC."""
    folder.mkdir(parents=True)
    (folder.parent / "home").mkdir(exist_ok=True)
    for part in PARTS:
        source = ROOT / part
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / part)
    shutil.copy(ROOT / "params.yaml", folder / "params.yaml")
    (folder / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", folder / ".dvc" / "config")
    shutil.copy(ROOT / ".dvc" / ".gitignore", folder / ".dvc" / ".gitignore")
    write_params(folder / "params.yaml", text_folder)
    write_data_set(folder / "data", "shapes", "classification", LABELS, [examples(90)])
    git(folder, "init", "--quiet", "--initial-branch=main")
    assert shell(folder, "dvc", "add", "data").returncode == 0
    commit(folder, "Start")
    return folder


def write_params(path: Path, text_folder: Path) -> None:
    members = yaml.safe_load(path.read_text())["members"]
    edit(
        path,
        members=members | {"fusions": {"fusion": members["fusions"]["fusion"]}},
        task__labels=LABELS,
        encoders__text__name=str(text_folder),
        encoders__text__revision=digest_model(text_folder),
        encoders__text__max_length=12,
        encoders__image__size=16,
        evaluate__resamples=50,
        benchmark__calls=5,
        benchmark__warmup=1,
        validate__max_quarantined=0.2,
        gate=[
            {"name": "accurate enough", "metric": "evaluation.ensemble.accuracy", "min": 0.0},
            {"name": "no worse than the champion", "metric": "evaluation.ensemble.accuracy", "margin": -0.5},
            {"name": "export agrees", "metric": "export.max_logit_difference", "max": 1e-4},
            {"name": "answers by itself", "metric": "rehearse.agreement", "min": 1.0},
        ],
        **{f"members__experts__{name}__{key}": value for name in ("text", "image") for key, value in TRAINING.items()},
        **{f"members__fusions__fusion__{key}": value for key, value in TRAINING.items()},
        members__fusions__fusion__hidden=8,
    )


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory, text_folder: Path) -> Path:
    """A project before its first run; read it, do not change it."""
    return make_project(tmp_path_factory.mktemp("project") / "repo", text_folder)


@pytest.fixture(scope="session")
def first_run(project: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The project after its first run, and what that printed; read it, do not change it."""
    repo = tmp_path_factory.mktemp("published") / "repo"
    clone_project(project, repo)
    return repo, retrain(repo)


def clone_project(source: Path, target: Path) -> None:
    """Copy a project with all it holds, links as links."""
    shutil.copytree(source, target, symlinks=True)
    (target.parent / "home").mkdir(exist_ok=True)


@pytest.fixture
def published(first_run: tuple[Path, object], tmp_path: Path) -> Path:
    """A project with a champion, the test's own."""
    clone_project(first_run[0], tmp_path / "repo")
    return tmp_path / "repo"
