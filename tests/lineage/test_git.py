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


def test_a_snapshot_holds_an_ignored_file_that_was_added_by_force(repo):
    (repo / "ignored").write_text("staged\n")
    git(repo, "add", "--force", "ignored")
    (repo / "ignored").write_text("as it stands\n")
    assert git(repo, "show", f"{take_snapshot(repo)}:ignored") == "as it stands"


def test_a_snapshot_holds_edits_that_git_was_told_to_overlook(repo):
    git(repo, "update-index", "--assume-unchanged", "a.txt")
    (repo / "a.txt").write_text("two\n")
    assert git(repo, "show", f"{take_snapshot(repo)}:a.txt") == "two"


def test_a_snapshot_in_the_midst_of_a_merge_holds_the_files_as_they_stand(repo):
    for branch, text in (("left", "left\n"), ("right", "right\n")):
        git(repo, "checkout", "-q", "-b", branch, "main")
        (repo / "a.txt").write_text(text)
        git(repo, "commit", "-q", "-a", "-m", branch)
    with pytest.raises(LineageError):
        git(repo, "merge", "left")
    assert git(repo, "show", f"{take_snapshot(repo)}:a.txt") == (repo / "a.txt").read_text().strip()
    assert git(repo, "ls-files", "--unmerged")


def test_a_snapshot_can_be_taken_where_the_index_was_lost(repo):
    (repo / ".git/index").unlink()
    assert take_snapshot(repo) == git(repo, "rev-parse", "HEAD")


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


def test_an_edit_of_the_same_size_in_the_same_second_is_not_missed(repo):
    for number in range(10, 20):
        (repo / "a.txt").write_text(f"{number}\n")
        git(repo, "commit", "--quiet", "--all", "-m", "Edit")
        (repo / "a.txt").write_text(f"{number + 10}\n")
        assert git(repo, "show", f"{take_snapshot(repo)}:a.txt") == str(number + 10)
