import shutil
from pathlib import Path

import pytest
from configobj import ConfigObj

from fuseline.errors import LineageError
from fuseline.lineage.dvc import (
    data_digest,
    dvc,
    refuse_changed_data,
    refuse_data_outside_its_remote,
    refuse_other_artifact,
    share_cache,
)


@pytest.fixture
def data(repo: Path) -> Path:
    """A repository whose data/ is under DVC."""
    (repo / "data").mkdir()
    (repo / "data/one.txt").write_text("one")
    dvc(repo, "init", "--quiet")
    dvc(repo, "add", "--quiet", "data")
    dvc(repo, "remote", "add", "--quiet", "--default", "store", str(repo.parent / "store"))
    dvc(repo, "push", "--quiet")
    return repo


def test_data_as_recorded_is_accepted_with_and_without_a_cache(data):
    refuse_changed_data(data)
    shutil.rmtree(data / ".dvc/cache")
    refuse_changed_data(data)


@pytest.mark.parametrize("cached", [True, False], ids=["with a cache", "without a cache"])
@pytest.mark.parametrize("name", ["one.txt", "two.txt"], ids=["an altered file", "another file"])
def test_data_changed_behind_dvcs_back_is_refused(name, cached, data):
    if not cached:
        shutil.rmtree(data / ".dvc/cache")
    path = data / "data" / name
    path.unlink(missing_ok=True)  # it may be a link into the cache
    path.write_text("two")
    with pytest.raises(LineageError, match="differs from data.dvc"):
        refuse_changed_data(data)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source/.dvc").mkdir(parents=True)
    (tmp_path / "clone/.dvc").mkdir(parents=True)
    (tmp_path / "source/.dvc/config").write_text("['remote \"artifacts\"']\n    url = ../.fuseline/remote\n")
    return tmp_path / "source"


def shared(source: Path) -> ConfigObj:
    clone = source.parent / "clone"
    share_cache(source, clone)
    return ConfigObj(str(clone / ".dvc/config.local"))


def test_a_clone_shares_the_cache_and_finds_relative_remotes(source):
    config = shared(source)
    assert config["cache"]["dir"] == str(source / ".dvc/cache")
    assert config['remote "artifacts"']["url"] == str(source / ".fuseline/remote")


def test_local_settings_of_the_user_go_along_and_win(source):
    (source / ".dvc/config.local").write_text(
        "['remote \"artifacts\"']\n    url = s3://bucket/path\n    endpointurl = http://localhost:9000\n"
        "[cache]\n    dir = /somewhere/cache\n"
    )
    config = shared(source)
    assert config['remote "artifacts"'] == {"url": "s3://bucket/path", "endpointurl": "http://localhost:9000"}
    assert config["cache"]["dir"] == "/somewhere/cache"


def test_the_data_revision_is_the_digest_in_data_dvc(tmp_path):
    (tmp_path / "data.dvc").write_text("outs:\n- md5: abc.dir\n  path: data\n")
    assert data_digest(tmp_path) == "abc"


BROKEN = {
    "a missing file": (None, "No such file or directory"),
    "an empty file": (b"", "expected keys with values"),
    "a list": (b"- outs", "expected keys with values"),
    "no YAML": (b": :", "not YAML"),
    "bytes that are not UTF-8": (b"\xff\xfe", "not YAML"),
}
NO_DIGEST = {
    "no outs": (b"outs: []", "expected `outs:`"),
    "outs without a digest": (b"outs:\n- path: data", "expected `outs:`"),
    "outs that are words": (b"outs:\n- data", "expected `outs:`"),
    "a digest left out": (b"outs:\n- md5:\n  path: data", "expected a digest after `md5:`, found None"),
}


def put(path: Path, content: bytes | None) -> None:
    if content is not None:
        path.write_bytes(content)


@pytest.mark.parametrize("read", [data_digest, refuse_data_outside_its_remote])
@pytest.mark.parametrize(
    ("content", "words"), [*BROKEN.values(), *NO_DIGEST.values()], ids=[*BROKEN.keys(), *NO_DIGEST.keys()]
)
def test_an_unreadable_data_dvc_is_told_with_the_remedy(tmp_path, content, words, read):
    put(tmp_path / "data.dvc", content)
    with pytest.raises(LineageError, match=rf"data\.dvc: cannot be read as DVC's: {words}.*`git checkout data\.dvc`"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [*BROKEN.values(), (b"artifacts:\n- fusion", "expected names with values under `artifacts:`")],
    ids=[*BROKEN.keys(), "artifacts in a list"],
)
def test_an_unreadable_dvc_yaml_is_told_with_the_remedy(tmp_path, content, words):
    put(tmp_path / "dvc.yaml", content)
    with pytest.raises(LineageError, match=rf"dvc\.yaml: cannot be read as DVC's: {words}.*`git checkout dvc\.yaml`"):
        refuse_other_artifact(tmp_path, "fusion")


def test_new_data_under_the_embedded_remote_is_refused(tmp_path):
    (tmp_path / "data.dvc").write_text("outs:\n- md5: abcd.dir\n  path: data\n  remote: embedded\n")
    with pytest.raises(LineageError, match="delete the line `remote: embedded`"):
        refuse_data_outside_its_remote(tmp_path)
    (tmp_path / "embedded/remote/files/md5/ab").mkdir(parents=True)
    (tmp_path / "embedded/remote/files/md5/ab/cd.dir").touch()
    refuse_data_outside_its_remote(tmp_path)


def test_a_name_that_dvc_yaml_does_not_publish_is_refused(tmp_path):
    (tmp_path / "dvc.yaml").write_text("artifacts:\n  fusion:\n    path: champion\n")
    refuse_other_artifact(tmp_path, "fusion")
    with pytest.raises(LineageError, match="publish.name is 'other', but dvc.yaml's artifacts are fusion"):
        refuse_other_artifact(tmp_path, "other")


@pytest.mark.parametrize(
    "content", ["stages: {}", "artifacts:", "artifacts:\n  fusion:", "artifacts:\n  fusion: champion"]
)
def test_a_dvc_yaml_that_publishes_nothing_is_told_so(tmp_path, content):
    (tmp_path / "dvc.yaml").write_text(content)
    with pytest.raises(LineageError, match="name it there too, with `path: champion`"):
        refuse_other_artifact(tmp_path, "fusion")
