import pytest

from fuseline.errors import PublishError
from fuseline.lineage import registry
from fuseline.lineage.git import git


@pytest.fixture
def two_versions(repo):
    for version in ("v1.0.0", "v1.1.0"):
        git(repo, "commit", "-q", "--allow-empty", "-m", version)
        registry.register(repo, "fusion", git(repo, "rev-parse", "HEAD"), version, "why")
        registry.assign(repo, "fusion", version, "why")
    return repo


def test_at_first_there_is_no_champion_and_the_next_version_is_one(repo):
    assert registry.champion(repo, "fusion") is None
    assert registry.next_version(repo, "fusion") == "v1.0.0"


def test_the_champion_is_what_was_assigned_last(two_versions):
    now = registry.champion(two_versions, "fusion")
    assert now is not None
    assert (now.version, now.tag) == ("v1.1.0", "fusion@v1.1.0")
    assert registry.next_version(two_versions, "fusion") == "v1.2.0"


def test_assigning_an_older_version_is_the_rollback_and_keeps_the_history(two_versions):
    assert registry.assign(two_versions, "fusion", "v1.0.0", "rollback") == "fusion#champion#3"
    now = registry.champion(two_versions, "fusion")
    assert now is not None
    assert now.version == "v1.0.0"
    assert registry.versions(two_versions, "fusion") == ["v1.0.0", "v1.1.0"]


def unassign(repo, version):
    import gto.api

    who = {"author": "T", "author_email": "t@localhost"}
    gto.api.unassign(repo, "fusion", version=version, stage=registry.STAGE, force=True, **who)  # within a second


def test_what_was_unassigned_is_champion_no_more(repo):
    registry.register(repo, "fusion", git(repo, "rev-parse", "HEAD"), "v1.0.0", "why")
    registry.assign(repo, "fusion", "v1.0.0", "why")
    unassign(repo, "v1.0.0")
    assert registry.champion(repo, "fusion") is None
    assert registry.versions(repo, "fusion") == ["v1.0.0"]
    assert registry.assign(repo, "fusion", "v1.0.0", "again") == "fusion#champion#3"
    now = registry.champion(repo, "fusion")
    assert now is not None
    assert now.version == "v1.0.0"


@pytest.mark.parametrize(
    ("gone", "left"),
    [
        pytest.param(["v1.1.0"], "v1.0.0", id="the one before, where the latest goes"),
        pytest.param(["v1.0.0"], "v1.1.0", id="the latest, where an older one goes"),
        pytest.param(["v1.1.0", "v1.0.0"], None, id="none, where all go"),
    ],
)
def test_unassigning_leaves(gone, left, two_versions):
    for version in gone:
        unassign(two_versions, version)
    now = registry.champion(two_versions, "fusion")
    assert (now.version if now else None) == left


def test_a_version_that_gto_deregistered_does_no_harm(two_versions):
    git(two_versions, "tag", "-a", "-m", "gone", "fusion@v1.0.0!#3", "fusion@v1.0.0^{}")
    assert registry.versions(two_versions, "fusion") == ["v1.0.0", "v1.1.0"]
    assert registry.next_version(two_versions, "fusion") == "v1.2.0"


def test_versions_are_ordered_as_numbers(repo):
    for version in ("v1.9.0", "v1.10.0"):
        git(repo, "commit", "-q", "--allow-empty", "-m", version)
        registry.register(repo, "fusion", git(repo, "rev-parse", "HEAD"), version, "why")
    assert registry.next_version(repo, "fusion") == "v1.11.0"


def test_a_version_is_registered_once(two_versions):
    with pytest.raises(PublishError, match="GTO refused to register fusion"):
        registry.register(two_versions, "fusion", git(two_versions, "rev-parse", "HEAD"), "v1.0.0", "again")


def test_of_two_pushes_of_the_same_version_the_second_is_refused(two_versions, tmp_path):
    clones = [tmp_path / name for name in ("a", "b")]
    for clone in clones:
        git(two_versions, "clone", "-q", str(two_versions), str(clone))
        git(clone, "commit", "-q", "--allow-empty", "-m", str(clone))
        registry.register(clone, "fusion", git(clone, "rev-parse", "HEAD"), "v1.2.0", "race")
    git(clones[0], "push", "-q", "--atomic", "origin", "refs/tags/fusion@v1.2.0")
    with pytest.raises(Exception, match="already exists"):
        git(clones[1], "push", "-q", "--atomic", "origin", "refs/tags/fusion@v1.2.0")
