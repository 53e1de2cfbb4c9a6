"""`fuseline data report` on a real repository: the page of today's data, and what changed since an earlier version."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fuseline.errors import LineageError
from fuseline.lineage.data import version_at
from fuseline.lineage.dvc import data_digest, dvc, refuse_changed_data
from fuseline.lineage.git import git
from fuseline.report.dataset import Dataset
from tests.test_ingest import LONG, ROWS, repo, run, write

pytestmark = pytest.mark.pipeline
__all__ = ["repo"]  # a fixture


def commit(repo: Path) -> str:
    git(repo, "add", "data.dvc")
    git(repo, "commit", "--quiet", "-m", "Data")
    return data_digest(repo)


@pytest.fixture
def versions(repo: Path, picture: Callable[..., bytes]) -> tuple[Path, str]:
    """Give a repository with two committed versions, and the first one's data revision."""
    (repo.parent / "a.png").write_bytes(picture())
    run("ingest", write(repo, *ROWS, LONG), "--new", "things")
    first = commit(repo)
    run(
        "ingest",
        write(repo, ROWS[0] | {"label": "blue"}, {"id": "n", "text": "new", "label": "blue", "image": "a.png"}),
    )
    commit(repo)
    return repo, first


def test_the_page_the_numbers_and_the_docs_are_written_and_nothing_else_changes(versions: tuple[Path, str]) -> None:
    repo, _ = versions
    before = git(repo, "status", "--porcelain")
    told = run("data", "report", "--out", str(repo.parent / "seen" / "page.html"))
    assert "9 rows in 2 batches" in told
    page = (repo.parent / "seen" / "page.html").read_text()
    found = Dataset.read(repo.parent / "seen" / "page.json")
    assert found.rows == 9
    assert {label: sum(counts.values()) for label, counts in found.labels.items()} == {"red": 7, "blue": 2}
    assert [(one.rows, one.superseded, one.quarantined) for one in found.shards] == [(8, 1, 1), (2, 0, 0)]
    assert found.quarantine.rules == {"text_length": 1}
    assert found.patterns == {"text": 8, "text + image": 1}
    assert page.count("<img ") == 1
    assert "text has 30 characters" in page
    assert {path.name for path in (repo.parent / "seen" / "page_docs").iterdir()} == {"rows.html", "data-set.html"}
    assert 'href="page_docs/rows.html"' in page
    assert git(repo, "status", "--porcelain") == before
    refuse_changed_data(repo)


@pytest.mark.parametrize("named", ["git", "digest"])
def test_what_changed_since_an_earlier_version_is_told(versions: tuple[Path, str], named: str) -> None:
    repo, first = versions
    told = run("data", "report", "--from", "HEAD~1" if named == "git" else first[:12])
    assert "1 rows came, 0 went, 1 changed" in told
    page = Path(told.split("page  ")[1].strip())
    assert page.is_relative_to(repo / ".fuseline" / "reports")
    drift = json.loads(page.with_suffix(".json").read_text())["drift"]
    assert (drift["data"], drift["relabelled"]) == (first, 1)
    assert drift["shown_relabelled"][0] | {"row": 0} == {"row": 0, "id": "0", "before": "red", "after": "blue"}
    assert "What changed since" in page.read_text()
    assert list((repo / ".fuseline" / "data").glob("at-*")) == []
    refuse_changed_data(repo)


def test_a_revision_that_cannot_be_had_is_named(versions: tuple[Path, str]) -> None:
    repo, first = versions
    assert "has no data.dvc" in run("data", "report", "--from", "HEAD~2", fails=True)
    assert "neither a git revision nor the data revision" in run("data", "report", "--from", "nonsense", fails=True)
    assert "neither a git revision" in run("data", "report", "--from", "--output=x", fails=True)
    shutil.rmtree(repo / ".dvc" / "cache")
    dvc(repo, "commit", "--force", "data.dvc")  # today's version alone is in the cache again
    told = run("data", "report", "--from", first, fails=True)
    assert f"the data of {first} ({first[:12]}) is neither in DVC's cache nor in a remote within reach" in told
    assert "Traceback" not in told


def test_an_earlier_version_comes_from_the_remote(versions: tuple[Path, str]) -> None:
    repo, first = versions
    dvc(repo, "remote", "add", "--default", "store", str(repo.parent / "store"))
    git(repo, "checkout", "--quiet", "HEAD~1", "--", "data.dvc")
    dvc(repo, "push", "data.dvc")
    git(repo, "checkout", "--quiet", "HEAD", "--", "data.dvc")
    shutil.rmtree(repo / ".dvc" / "cache")
    dvc(repo, "commit", "--force", "data.dvc")
    with version_at(repo, "HEAD~1") as (digest, folder):
        assert digest == first
        assert (folder / "manifest.json").exists()
    with pytest.raises(LineageError, match="no data.dvc"), version_at(repo, "HEAD~2"):
        pass


def test_a_data_set_that_lost_its_last_row_has_a_page_too(repo: Path) -> None:
    run("ingest", write(repo, *ROWS[:2]), "--new", "things")
    run("forget", "--ids", "0", "--ids", "1")
    told = run("data", "report", "--out", str(repo.parent / "seen"))
    assert "0 rows" in told
    assert "Empty" in (repo.parent / "seen" / "report.html").read_text()


def test_a_page_that_cannot_be_written_is_named(repo: Path) -> None:
    run("ingest", write(repo, *ROWS), "--new", "things")
    (repo.parent / "file").touch()
    assert "cannot be written" in run("data", "report", "--out", str(repo.parent / "file" / "page.html"), fails=True)
