from pathlib import Path

import pytest

from fuseline.errors import LineageError
from fuseline.lineage.git import git, inputs_key, refuse_shallow, root, take_snapshot


def test_a_clean_tree_is_its_own_snapshot(repo):
    assert take_snapshot(repo) == git(repo, "rev-parse", "HEAD")


def test_a_snapshot_holds_edits_and_new_files_but_no_ignored_ones(repo):
    (repo / "a.txt").write_text("two\n")
    (repo / "new.txt").write_text("new\n")
    (repo / "ignored").write_text("no\n")
    snapshot = take_snapshot(repo)
    assert git(repo, "show", f"{snapshot}:a.txt") == "two"
    assert git(repo, "ls-tree", "--name-only", snapshot).split() == [".gitignore", "a.txt", "new.txt"]


def test_a_snapshot_holds_deletions(repo):
    (repo / "a.txt").unlink()
    assert git(repo, "ls-tree", "--name-only", take_snapshot(repo)) == ".gitignore"


def test_taking_a_snapshot_changes_nothing_of_the_users(repo):
    (repo / "a.txt").write_text("two\n")
    before = git(repo, "status", "--porcelain"), git(repo, "rev-parse", "HEAD")
    take_snapshot(repo)
    assert (git(repo, "status", "--porcelain"), git(repo, "rev-parse", "HEAD")) == before


def test_a_repository_without_a_commit_is_told_to_make_one(tmp_path):
    git(tmp_path, "init", "-q")
    with pytest.raises(LineageError, match="make one first"):
        take_snapshot(tmp_path)


def test_outside_a_repository_the_error_names_the_folder(tmp_path):
    with pytest.raises(LineageError, match=f"{tmp_path}: not inside a git repository"):
        root(tmp_path)


def test_the_inputs_key_changes_with_the_inputs_alone(repo: Path):
    before = inputs_key(repo, take_snapshot(repo), ("a.txt",))
    (repo / "new.txt").write_text("new\n")
    assert inputs_key(repo, take_snapshot(repo), ("a.txt",)) == before
    (repo / "a.txt").write_text("two\n")
    assert inputs_key(repo, take_snapshot(repo), ("a.txt",)) != before


def test_a_shallow_clone_is_refused_for_it_may_lack_the_champions_tags(repo, tmp_path):
    git(repo, "commit", "-q", "--allow-empty", "-m", "two")
    git(repo, "clone", "-q", "--depth", "1", f"file://{repo}", str(tmp_path / "shallow"))
    refuse_shallow(repo)
    with pytest.raises(LineageError, match="git fetch --unshallow --tags"):
        refuse_shallow(tmp_path / "shallow")
