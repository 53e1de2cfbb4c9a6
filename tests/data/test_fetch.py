"""Fetch: a batch comes from a path, any fsspec URL or an archive, whole and within bounds, and no secret is shown."""

from __future__ import annotations

import importlib
import threading
import traceback
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from moto.server import ThreadedMotoServer

from fuseline.data.adapters import read
from fuseline.data.fetch import fetch
from fuseline.data.urls import clean_url, hide_secrets
from fuseline.errors import DataError

ROWS = b'{"image": "pictures/a.png", "label": "x"}\n'


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """Give fsspec's memory, empty before and after."""
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield store
    store.store.clear()
    store.pseudo_dirs[:] = [""]


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """Give the address of an S3-compatible server."""
    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(moto: str, monkeypatch: pytest.MonkeyPatch) -> fsspec.AbstractFileSystem:
    """Give a bucket `inbox` with a batch, reached by environment variables as on any machine."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "verysecret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    store = fsspec.filesystem("s3", skip_instance_cache=True)
    if not store.exists("inbox"):
        store.mkdir("inbox")
    store.pipe({"inbox/batch/rows.jsonl": ROWS, "inbox/batch/pictures/a.png": b"a", "inbox/rows.jsonl": ROWS})
    return store


def test_a_local_folder_or_file_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(ROWS)
    for source in (tmp_path, str(tmp_path), tmp_path / "rows.jsonl", f"file://{tmp_path}"):
        assert str(fetch(source, tmp_path / "scratch")) == str(source).removeprefix("file://")
    assert not (tmp_path / "scratch").exists()


def test_a_folder_in_s3_is_brought_whole(s3: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    for url in ("s3://inbox/batch", "s3://inbox/batch/"):
        path = fetch(url, tmp_path / url.replace("/", "_"))
        (row,) = pa.concat_tables(read(path)).to_pylist()
        assert (row["image"], row["target"], row["problem"]) == (b"a", "x", None)


def test_a_file_in_s3_is_brought_alone(s3: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    path = fetch("s3://inbox/rows.jsonl", tmp_path)
    assert path.name == "rows.jsonl"
    assert path.read_bytes() == ROWS


def test_what_came_to_a_bucket_since_is_seen(s3: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    fetch("s3://inbox/batch", tmp_path / "first")
    s3.pipe("inbox/batch/pictures/late.png", b"late")
    assert (fetch("s3://inbox/batch", tmp_path / "second") / "pictures/late.png").read_bytes() == b"late"


def test_what_a_store_has_in_place_of_a_folder_is_no_file(s3: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    s3.pipe({"inbox/made/": b"", "inbox/made/sub/": b"", "inbox/made/sub/a.png": b"a"})
    path = fetch("s3://inbox/made", tmp_path)
    assert [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()] == ["sub/a.png"]


def test_a_name_in_a_store_does_not_lead_out(s3: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    s3.pipe("inbox/evil/../../../etc/passwd", b"x")
    with pytest.raises(DataError, match="cannot be a file's name"):
        fetch("s3://inbox/evil", tmp_path / "a/b/c/d")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("url", ["s3://inbox/none", "s3://no-such-bucket/a", "memory://none"])
def test_what_is_not_there_is_said(
    s3: fsspec.AbstractFileSystem, memory: fsspec.AbstractFileSystem, tmp_path: Path, url: str
) -> None:
    with pytest.raises(DataError, match=f"{url}: .*(not found|does not exist)"):
        fetch(url, tmp_path)


def test_a_server_that_does_not_answer_is_an_error_in_plain_words(tmp_path: Path) -> None:
    options = {"endpoint_url": "http://127.0.0.1:9", "key": "testing", "secret": "verysecret",
               "config_kwargs": {"retries": {"max_attempts": 1}}}  # fmt: skip
    with pytest.raises(DataError, match="s3://inbox/a: cannot be fetched"):
        fetch("s3://inbox/a", tmp_path, options=options)


@pytest.mark.parametrize(
    ("limit", "why"), [({"max_files": 2}, "more than 2 files"), ({"max_bytes": 25}, "more than 25 b")]
)
def test_bounds_hold(memory: fsspec.AbstractFileSystem, tmp_path: Path, limit: dict[str, int], why: str) -> None:
    memory.pipe({f"/batch/{n}/a.png": b"x" * 10 for n in range(3)})
    memory.pipe("/large", b"x" * 100)
    fetch("memory://batch", tmp_path / "fits")
    with pytest.raises(DataError, match=f"memory://batch: {why}"):
        fetch("memory://batch", tmp_path / "first", **limit)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="memory://large: more than 50 bytes"):
        fetch("memory://large", tmp_path / "second", max_bytes=50)


def test_an_empty_folder_is_no_batch(memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    memory.mkdir("/empty")
    with pytest.raises(DataError, match="no file is there"):
        fetch("memory://empty", tmp_path)


def test_an_archive_is_unpacked_wherever_it_lies(memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "batch.zip", "w") as archive:
        archive.writestr("rows.jsonl", ROWS)
        archive.writestr("pictures/a.png", b"a")
    memory.pipe("/inbox/batch.zip", (tmp_path / "batch.zip").read_bytes())
    for source in (tmp_path / "batch.zip", "memory://inbox/batch.zip"):
        path = fetch(source, tmp_path / str(len(str(source))))
        assert pa.concat_tables(read(path))["image"].to_pylist() == [b"a"]


def test_a_path_that_is_not_there_and_a_chain_of_urls_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not found; expected a batch"):
        fetch(tmp_path / "none", tmp_path)
    with pytest.raises(DataError, match="chained URLs are not taken"):
        fetch("simplecache::memory://a", tmp_path)
    with pytest.raises(DataError, match="cannot be fetched.*nosuch"):
        fetch("nosuch://a", tmp_path)


def test_a_protocol_whose_library_is_missing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    protocols = importlib.import_module("fsspec.registry").known_implementations
    monkeypatch.setitem(protocols, "rare", {"class": "nosuchlibrary.Rare", "err": "Install it"})
    with pytest.raises(DataError, match="rare://a: cannot be fetched: Install it"):
        fetch("rare://a", tmp_path)


SECRETS = {
    "s3://key:verysecret@inbox/batch": "s3://inbox/batch",
    "s3://key:very/secret@inbox/batch": "s3://inbox/batch",
    "ftp://me@host/batch": "ftp://host/batch",
    "https://host/batch.zip?X-Signature=verysecret#verysecret": "https://host/batch.zip",
    "s3://inbox/a@b/c": "s3://inbox/a@b/c",
    "/home/me/a@b?c": "/home/me/a@b?c",
    "https:/me:verysecret@host/a?b": "https:/host/a",
    "memory://a": "memory://a",
    "simplecache::s3://key:verysecret@inbox/batch": "simplecache::s3://inbox/batch",
}


@pytest.mark.parametrize("url", SECRETS)
def test_a_clean_url_holds_no_secret(url: str) -> None:
    assert clean_url(url) == SECRETS[url]


@pytest.mark.parametrize("url", SECRETS)
def test_a_url_in_a_text_is_cleaned_too(url: str) -> None:
    shown = SECRETS[url].rpartition("::")[2] if "::" not in url else SECRETS[url]
    assert hide_secrets(f'{{"a": "{url}"}} and {url}') == f'{{"a": "{shown}"}} and {shown}'
    assert hide_secrets(r"https:\/\/host\/a?t=verysecret") == r"https:\/\/host\/a"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """Give the address, without its scheme, of a server of `served/`, which looks at no query."""
    (tmp_path / "served").mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["rows.jsonl", "batch.zip"])
def test_a_presigned_batch_leaves_its_secret_nowhere(web: str, tmp_path: Path, name: str) -> None:
    lines = b'{"image": "https://me:%b@host/a.png?sig=%b", "label": "x"}\n{"broken": "s3://b/c?sig=%b\n' % ((
        SECRET.encode(),) * 3)  # fmt: skip
    (tmp_path / "served/rows.jsonl").write_bytes(lines)
    with zipfile.ZipFile(tmp_path / "served/batch.zip", "w") as archive:
        archive.writestr("rows.jsonl", lines)
    path = fetch(f"http://{web}/{name}?X-Amz-Signature={SECRET}", tmp_path / "scratch")
    rows = pa.concat_tables(read(path)).to_pylist()
    assert [row["where"] for row in rows] == ["rows.jsonl, line 1", "rows.jsonl, line 2"]
    assert "'https://host/a.png' is a URL" in rows[0]["problem"]
    assert SECRET not in repr(rows)


SECRET = "very" + "secret"  # a trace shows lines of code, this one among them


@pytest.mark.parametrize(
    "url",
    ["s3://key:{}@inbox/batch", "nosuch://key:{}@inbox/batch", "memory://key:{}@none", "memory://none?token={}", "simplecache::s3://key:{}@inbox/a",
     "http://key:{}@127.0.0.1:9/a?token={}"],
)  # fmt: skip
def test_no_error_shows_a_secret(s3: fsspec.AbstractFileSystem, tmp_path: Path, url: str) -> None:
    with pytest.raises(DataError) as caught:
        fetch(url.format(SECRET, SECRET), tmp_path, options={"secret": SECRET} if url.startswith("s3") else None)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
