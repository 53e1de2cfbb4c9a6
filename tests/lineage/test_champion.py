import os
import shutil
import threading

import pytest

from fuseline.errors import BundleError, LineageError, PublishError
from fuseline.lineage.champion import describe_installed, install, promote
from fuseline.lineage.dvc import dvc
from fuseline.lineage.git import git
from fuseline.lineage.registry import register
from fuseline.records import Bundle, BundleFile, sha256_of


def bundle(repo, text):
    folder = repo / ".fuseline" / "incoming" / text
    folder.mkdir(parents=True)
    (folder / "model").write_text(text)
    return folder


def test_champion_is_a_link_that_moves_at_once(repo):
    install(repo, bundle(repo, "one"), "v1.0.0")
    assert (repo / "champion/model").read_text() == "one"
    install(repo, bundle(repo, "two"), "v1.1.0")
    assert (repo / "champion/model").read_text() == "two"
    assert not os.path.isabs(os.readlink(repo / "champion"))


def test_the_previous_bundle_stays_for_its_readers_and_older_ones_go(repo):
    for number in range(4):
        install(repo, bundle(repo, str(number)), f"v1.{number}.0")
    held = sorted(path.name[:6] for path in (repo / ".fuseline/champions").iterdir())
    assert held == ["v1.2.0", "v1.3.0"]


def test_a_reader_never_finds_the_champion_missing(repo):
    install(repo, bundle(repo, "0"), "v1.0.0")
    missing, stop, looked = [], threading.Event(), threading.Event()

    def watch():
        while not stop.is_set():
            if not (repo / "champion/model").exists():
                missing.append(1)
            looked.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(1, 50):
        install(repo, bundle(repo, str(number)), f"v1.{number}.0")
        looked.clear()
        looked.wait()  # a look may last as long as one swap, not two: the last two bundles are kept
    stop.set()
    watcher.join()
    assert not missing


def test_a_folder_that_somebody_else_made_is_not_overwritten(repo):
    (repo / "champion").mkdir()
    (repo / "champion/mine").write_text("mine")
    with pytest.raises(PublishError, match="not Fuseline's link"):
        install(repo, bundle(repo, "one"), "v1.0.0")
    assert (repo / "champion/mine").read_text() == "mine"


def test_a_promotion_that_cannot_be_shared_did_not_happen(repo, monkeypatch):
    register(repo, "fusion", "HEAD", "v1.0.0", "first")
    shared = repo.parent / "shared.git"
    git(repo, "clone", "--quiet", "--bare", str(repo), str(shared))
    git(repo, "remote", "add", "origin", str(shared))
    (shared / "hooks" / "pre-receive").write_text("#!/bin/sh\nexit 1\n")
    (shared / "hooks" / "pre-receive").chmod(0o755)
    monkeypatch.setattr("fuseline.lineage.champion.fetch", lambda repo, *_: bundle(repo, "one"))
    with pytest.raises(LineageError, match="push"):
        promote(repo, "fusion", "v1.0.0", "origin")
    assert git(repo, "tag").split() == ["fusion@v1.0.0"]
    assert not (repo / "champion").exists()
    (shared / "hooks" / "pre-receive").unlink()
    shutil.rmtree(repo / ".fuseline")
    assert promote(repo, "fusion", "v1.0.0", "origin") in git(shared, "tag").split()
    assert (repo / "champion/model").read_text() == "one"


def test_promoting_an_unknown_version_lists_the_known(repo):
    with pytest.raises(PublishError, match=r"no version 'v9.0.0' of fusion; registered: none"):
        promote(repo, "fusion", "v9.0.0", None)


def test_a_champion_that_is_not_installed_is_told_with_the_remedy(repo):
    assert "run `fuseline promote v1.0.0`" in describe_installed(repo, "v1.0.0")


@pytest.fixture
def published(repo):
    """A repository with a version whose bundle lies in cache and remote."""
    (repo / "champion").mkdir()
    (repo / "champion/model.onnx").write_bytes(b"graph")
    described = BundleFile(sha256=sha256_of(repo / "champion/model.onnx"), bytes=5)
    Bundle(
        name="fusion", task="classification", labels=["a", "b"], modalities=["image"], members=["image"], max_tokens=1,
        inputs={}, outputs={}, versions={}, data="d", code="c", files={"model.onnx": described},
    ).write(repo / "champion/bundle.json")  # fmt: skip
    dvc(repo, "init", "--quiet")
    dvc(repo, "config", "cache.type", "hardlink,copy")
    dvc(repo, "remote", "add", "--quiet", "--default", "store", str(repo.parent / "store"))
    dvc(repo, "add", "--quiet", "champion")
    dvc(repo, "push", "--quiet")
    git(repo, "add", "--all")
    git(repo, "commit", "--quiet", "-m", "Publish")
    shutil.rmtree(repo / "champion")
    register(repo, "fusion", git(repo, "rev-parse", "HEAD"), "v1.0.0", "first")
    return repo


def cached(repo):
    return next(p for p in (repo / ".dvc/cache/files/md5").glob("??/*") if p.read_bytes().startswith(b"graph"))


def test_a_champion_is_a_copy_of_dvcs_cache(published):
    promote(published, "fusion", "v1.0.0", None)
    assert not (published / "champion/model.onnx").samefile(cached(published))


def test_a_damaged_cache_is_healed_from_the_remote(published):
    damaged = cached(published)
    damaged.chmod(0o644)
    damaged.write_bytes(b"graph, altered")
    promote(published, "fusion", "v1.0.0", None)
    assert (published / "champion/model.onnx").read_bytes() == b"graph"
    assert not damaged.exists()


def test_nothing_is_promoted_where_the_remote_is_damaged_too(published):
    for path in [cached(published), *(published.parent / "store").rglob("*")]:
        if path.is_file() and path.read_bytes() == b"graph":
            path.chmod(0o644)
            path.write_bytes(b"altered")
    with pytest.raises((BundleError, LineageError)):
        promote(published, "fusion", "v1.0.0", None)
    assert not (published / "champion").exists()
    assert list((published / ".fuseline/incoming").iterdir()) == []
