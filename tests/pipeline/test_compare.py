"""A version against the workspace, by real DVC: every plot is drawn for both, and all tell the evaluation's numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.conftest import clone_project, shell

pytestmark = pytest.mark.pipeline
DRAWN = {
    "build/evaluate/plots/confusion/ensemble.csv",
    "build/evaluate/plots/classes/ensemble.json",
    "build/evaluate/plots/reliability/ensemble.json",
    "build/evaluate/plots/learning/text.json",
    "build/evaluate/plots/learning/image.json",
    "build/evaluate/plots/learning/fusion.json",
    "build/benchmark/plots/latency/ensemble.json",
    "build/benchmark/plots/latency/int8.json",
}


@pytest.fixture(scope="module")
def repo(first_run: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a champion, and the same model in build/."""
    folder = tmp_path_factory.mktemp("compared") / "repo"
    clone_project(first_run[0], folder)
    done = shell(folder, "dvc", "repro")
    assert done.returncode == 0, done.stderr
    return folder


def ask(repo: Path, *command: str) -> Any:
    done = shell(repo, *command)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_plot_is_drawn_for_both(repo: Path) -> None:
    found = ask(repo, "dvc", "plots", "diff", "fusion@v1.0.0", "workspace", "--json")
    assert not found.get("errors")
    assert found["data"].keys() == DRAWN
    for name, plots in found["data"].items():
        for plot in plots:
            assert set(plot["revisions"]) == {"fusion@v1.0.0", "workspace"}, name
            text = plot["content"] if isinstance(plot["content"], str) else json.dumps(plot["content"])
            assert "<DVC_METRIC" not in text, name
            assert '"rev": "workspace"' in text, name


def test_dvc_and_compare_tell_the_numbers_of_the_evaluation(repo: Path) -> None:
    evaluation = json.loads((repo / "build/evaluate/evaluation.json").read_text())
    accuracy = evaluation["ensemble"]["accuracy"]["value"]
    shown = ask(repo, "dvc", "metrics", "show", "--json")[""]["data"]
    exported = shown["build/export/metrics.json"]["data"]["exported"]
    assert (exported["system"], exported["accuracy"]) == ("ensemble", accuracy)
    found = ask(repo, "fuseline", "compare", "v1.0.0", "workspace", "--json")
    assert found["rows"] == evaluation["rows"]
    assert found["metrics"]["accuracy"]["after"] == pytest.approx(accuracy)
    assert found["before"]["version"] == "v1.0.0"
    assert found["params"] == {}
