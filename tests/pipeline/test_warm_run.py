"""A run that goes on from the champion, by the commands that people use; and any clone of it trains the same again."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from fuseline.records import Forgetting, History, Start
from tests.pipeline.conftest import edit, examples, git, retrain, shell

pytestmark = pytest.mark.pipeline


def bring_in(repo: Path, rows: pa.Table) -> None:
    """Take a batch of new examples in."""
    lines = [{key: row[key] for key in ("id", "group", "text")} | {"label": row["target"]} for row in rows.to_pylist()]
    (repo.parent / "batch.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    done = shell(repo, "fuseline", "ingest", str(repo.parent / "batch.jsonl"))
    assert done.returncode == 0, done.stderr


def test_a_run_goes_on_from_the_champion_replays_its_rows_and_a_clone_of_it_does_the_same(
    published: Path, tmp_path: Path
) -> None:
    bring_in(published, examples(120).slice(90))
    warm = {"replay": 0.25}
    edit(published / "params.yaml", members__experts__text__warm_start=warm, members__fusions__fusion__warm_start=warm)
    done = retrain(published)
    told = done.stdout + done.stderr
    assert "Published v1.1.0" in done.stdout, told
    assert "train text: goes on from champion v1.0.0" in told

    at = "fusion@v1.1.0"
    start = Start.model_validate_json(git(published, "show", f"{at}:start.json"))
    assert start.version == "v1.0.0"
    assert len(start.known) == 1
    assert {file.rpartition("/")[0] for file in start.files} == {"experts/text", "fusions/fusion"}
    forgetting = Forgetting.read(published / "champion/evidence/forgetting.json")
    assert forgetting.champion == "v1.0.0"
    assert "Old and new rows" in (published / "champion/evidence/report.html").read_text()

    clone = tmp_path / "clone"
    git(published, "clone", "--quiet", str(published), str(clone))
    (clone.parent / "home").mkdir(exist_ok=True)
    git(clone, "checkout", "--quiet", at)
    assert shell(clone, "dvc", "remote", "modify", "--local", "artifacts", "url", str(published / ".fuseline/remote"))
    for target in ("data.dvc", "start.dvc", "build/prepare"):  # of several at once DVC 3.67 checks out one
        pulled = shell(clone, "dvc", "pull", target)
        assert pulled.returncode == 0, pulled.stderr
    (clone / "build/pretrain").mkdir(exist_ok=True)  # off: nothing is in it
    again = shell(clone, "dvc", "repro", "--single-item", "--force", "train@text")
    assert again.returncode == 0, again.stdout + again.stderr
    history = History.read(clone / "build/train/experts/text/history.json")
    assert history.origin is not None
    assert history.origin.version == "v1.0.0"
    assert history.origin.replayed == -(-history.origin.old_rows // 4)
    assert history.origin.new_rows > 0
    changed = git(clone, "diff", "--", "dvc.lock")
    assert "build/train/experts/text" not in changed, "the same weights came of it"
