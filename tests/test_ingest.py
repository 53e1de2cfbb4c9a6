"""The commands that change the data set: each makes its next version, or changes nothing and says why."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from fuseline.cli import app
from fuseline.data.shards import read_examples, read_manifest
from fuseline.lineage.dvc import data_digest, dvc, refuse_changed_data
from fuseline.lineage.git import git

pytestmark = pytest.mark.pipeline
PARAMS = Path(__file__).parents[1] / "params.yaml"
Run = Callable[..., str]


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a repository with params for two labels, and no data yet."""
    for scope in ("GLOBAL", "SYSTEM"):
        monkeypatch.setenv(f"GIT_CONFIG_{scope}", os.devnull)
    folder = tmp_path / "repo"
    folder.mkdir()
    document = yaml.safe_load(PARAMS.read_text())
    document["task"]["labels"] = ["red", "blue"]
    document["validate"] |= {"max_quarantined": 0.3, "max_text_chars": 20}
    (folder / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    git(folder, "init", "--quiet")
    dvc(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "Start")
    monkeypatch.chdir(folder)
    return folder


def run(*arguments: str, fails: bool = False) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert (done.exit_code == 0) != fails, done.output
    return done.output


def held(repo: Path) -> set[str]:
    return set(read_examples(repo / "data")["id"].to_pylist())


def write(repo: Path, *rows: dict[str, Any]) -> str:
    path = repo.parent / "batch.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


ROWS = [{"id": str(n), "text": f"thing {n}", "label": "red"} for n in range(8)]
LONG = {"id": "long", "text": "x" * 30, "label": "blue"}


def test_a_data_set_begins_with_a_batch_and_grows(repo: Path) -> None:
    assert "begin one with --new NAME" in run("ingest", write(repo, *ROWS), fails=True)
    assert "accepted  8 of 8 rows" in run("ingest", write(repo, *ROWS), "--new", "things")
    first = data_digest(repo)
    assert "nothing changes" in run("ingest", write(repo, *ROWS))
    assert data_digest(repo) == first
    told = run("ingest", write(repo, *ROWS, {"id": "9", "text": "sky", "label": "blue"}))
    assert "accepted  1 of 9 rows" in told
    assert "unchanged  8 rows" in told
    assert data_digest(repo) != first
    assert read_manifest(repo / "data").rows == 9
    refuse_changed_data(repo)


def test_a_data_set_without_a_batch_and_a_broken_manifest_are_told(repo: Path) -> None:
    run("ingest", write(repo, *ROWS), "--new", "things")
    manifest = json.loads((repo / "data/manifest.json").read_text())
    for changed, told in (
        ({"shards": [], "rows": 0}, f"{repo}/data/manifest.json: lists no shard"),
        ({"shards": "x"}, f"{repo}/data/manifest.json: not a valid DataManifest record at shards"),
    ):
        (repo / "data/manifest.json").unlink()
        (repo / "data/manifest.json").write_text(json.dumps(manifest | changed))
        dvc(repo, "add", "--quiet", "data")
        assert told in run("forget", "--ids", "1", fails=True)


def test_a_dry_run_tells_and_changes_nothing(repo: Path) -> None:
    told = run("ingest", write(repo, *ROWS, LONG), "--new", "things", "--dry-run")
    assert "would accept  8 of 9 rows" in told
    assert "text has 30 characters" in told
    assert "red 8" in told
    assert not (repo / "data.dvc").exists()


def test_quarantined_rows_are_listed_shown_and_released(repo: Path) -> None:
    run("ingest", write(repo, *ROWS, LONG), "--new", "things")
    assert "batch 0  1 rows  text_length 1" in run("quarantine", "list")
    assert json.loads(run("quarantine", "show", "--json"))["id"] == "long"
    assert "still break the contract" in run("quarantine", "release", "--ids", "long", fails=True)
    assert "cannot be waived" in run("quarantine", "release", "--ids", "long", "--waive", "target", fails=True)
    assert "accepted  1 of 1 rows" in run("quarantine", "release", "--ids", "long", "--waive", "text_length")
    assert "no row is in quarantine" in run("quarantine", "list")
    manifest = read_manifest(repo / "data")
    assert (manifest.rows, manifest.shards[-1].waives) == (9, ["text_length"])
    refuse_changed_data(repo)


def test_a_looser_contract_releases_without_a_waiver(repo: Path) -> None:
    run("ingest", write(repo, *ROWS, LONG), "--new", "things")
    document = yaml.safe_load((repo / "params.yaml").read_text())
    document["validate"]["max_text_chars"] = 30
    (repo / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    assert "accepted  1 of 1 rows" in run("quarantine", "release", "--batch", "0")


def test_a_forgotten_example_is_gone_from_the_new_version(repo: Path) -> None:
    run("ingest", write(repo, *ROWS), "--new", "things")
    assert "no example has the id nobody" in run("forget", "--ids", "nobody", fails=True)
    assert "deleted 2 examples" in run("forget", "--ids", "1", "--ids", "2")
    assert held(repo) == {"0", "3", "4", "5", "6", "7"}
    refuse_changed_data(repo)
    assert "nothing changes" in run("ingest", write(repo, *ROWS))
    assert "forgotten  2 rows left out" in run("ingest", write(repo, *reversed(ROWS)))
    assert held(repo) == {"0", "3", "4", "5", "6", "7"}
    assert "accepted  2 of 8 rows" in run("ingest", write(repo, *ROWS), "--allow-forgotten")
    assert held(repo) == {row["id"] for row in ROWS}
