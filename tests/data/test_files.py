"""Files of a batch: those inside it, and only regular ones of a bearable size."""

from __future__ import annotations

import io
import os
import socket
from pathlib import Path

import pytest

from fuseline.data import files
from fuseline.data.files import decode_data_uri, iter_lines, list_files, read_file
from fuseline.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "root-sibling").mkdir()
    (tmp_path / "root-sibling/a").write_bytes(b"secret")
    (tmp_path / "root/sub").mkdir(parents=True)
    (tmp_path / "root/a").write_bytes(b"a")
    (tmp_path / "root/sub/b").write_bytes(b"b")
    return tmp_path / "root"


@pytest.mark.parametrize("name", ["a", "./a", "sub/../a", "sub\\..\\a"])
def test_a_file_inside_is_read(root: Path, name: str) -> None:
    assert read_file(root, name) == b"a"


@pytest.mark.parametrize(
    "name",
    ["../secret", "sub/../../secret", "../root-sibling/a", "..", "/etc/passwd", "\\\\host\\share", "c:/a",
     "~/../secret", "", ".", "sub", "none", "a/b", "a\0", "x" * 5000, "a\ud800", "s3://bucket/a", "sub/.hidden"],
)  # fmt: skip
def test_nothing_else_is_read(root: Path, name: str) -> None:
    (root / "sub/.hidden").write_bytes(b"hidden")
    with pytest.raises(DataError):
        read_file(root, name)


def test_links_are_followed_inside_only(root: Path) -> None:
    (root / "in").symlink_to("sub/b")
    (root / "out").symlink_to("../secret")
    (root / "folder").symlink_to("..")
    (root / "loop").symlink_to("loop")
    assert read_file(root, "in") == b"b"
    for name in ("out", "folder/secret", "loop"):
        with pytest.raises(DataError):
            read_file(root, name)


def test_a_batch_that_is_itself_a_link_is_read(root: Path) -> None:
    (root.parent / "link").symlink_to("root")
    assert read_file(root.parent / "link", "a") == b"a"


def test_pipes_sockets_and_devices_are_refused_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(root / "pipe")
    monkeypatch.chdir(root)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("socket")
        for name in ("pipe", "socket"):
            with pytest.raises(DataError, match="a device, a pipe, a socket"):
                read_file(root, name)


def test_a_large_file_is_refused_before_it_is_read(root: Path) -> None:
    with (root / "large").open("wb") as file:
        file.truncate(files.MAX_FILE_BYTES + 1)
    with pytest.raises(DataError, match="at most 268,435,456 are read"):
        read_file(root, "large")


def test_a_folders_files_are_listed_without_hidden_ones_and_links_are_not_entered(root: Path) -> None:
    (root / ".git").mkdir()
    (root / ".git/config").write_bytes(b"")
    (root / "_SUCCESS").write_bytes(b"")
    (root / "up").symlink_to("..")
    assert list_files(root) == ["a", "sub/b", "up"]


@pytest.mark.parametrize(
    ("uri", "data"),
    [("data:;base64,aGk=", b"hi"), ("data:image/png;base64,aG\nk=", b"hi"), ("data:text/plain,h%69", b"hi")],
)
def test_a_data_uri_holds_bytes(uri: str, data: bytes) -> None:
    assert decode_data_uri(uri) == data


@pytest.mark.parametrize("uri", ["data:", "data:;base64,?", "data:;base64,aGk", "data:;base64,é"])
def test_a_data_uri_that_is_not_well_formed_is_refused(uri: str) -> None:
    with pytest.raises(DataError, match="data URI"):
        decode_data_uri(uri)


def test_lines_keep_their_numbers_where_one_is_too_long() -> None:
    stream = io.BufferedReader(io.BytesIO(b"\xef\xbb\xbfab\n" + b"x" * 50 + b"\n" + b"y" * 10 + b"\nlast"))  # type: ignore[arg-type]
    assert list(iter_lines(stream, 10)) == [(1, b"ab\n"), (2, None), (3, b"y" * 10 + b"\n"), (4, b"last")]
