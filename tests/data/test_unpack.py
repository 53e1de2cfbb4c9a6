"""Archives: plain files and folders come out, nothing else does, and a refused one leaves nothing."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuseline.data import unpack as module
from fuseline.data.unpack import Bounds, is_archive, unpack
from fuseline.errors import DataError

Make = Callable[..., Path]
TARS = {"batch.tar": "w", "batch.tar.gz": "w:gz", "batch.tgz": "w:gz", "batch.tar.bz2": "w:bz2", "batch.tar.xz": "w:xz"}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write an archive of names and contents."""

    def to(name: str, *members: tuple[str, bytes]) -> Path:
        path = tmp_path / name
        if name.endswith(".zip"):
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for member, content in members:
                    archive.writestr(member, content)
        else:
            with tarfile.open(path, TARS[name]) as archive:  # type: ignore[call-overload]
                for member, content in members:
                    info = tarfile.TarInfo(member)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        return path

    return to


def refuse(archive: Path, why: str, bounds: Bounds | None = None) -> None:
    folder = archive.parent / "out"
    with pytest.raises(DataError, match=why) as caught:
        unpack(archive, folder, bounds or Bounds())
    assert str(caught.value).startswith(archive.name)
    assert not folder.exists()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["batch.zip", *TARS])
def test_files_come_out_as_they_went_in(make: Make, tmp_path: Path, name: str) -> None:
    files = {"rows.jsonl": b"x" * 3000, "sub/b.png": b"", "./sub/c.png": b"c" * 512}
    assert is_archive(name)
    unpack(make(name, *files.items()), tmp_path / "out", Bounds())
    assert contents(tmp_path / "out") == {"rows.jsonl": b"x" * 3000, "sub/b.png": b"", "sub/c.png": b"c" * 512}


@pytest.mark.parametrize("archive", ["batch.zip", "batch.tar.gz"])
@pytest.mark.parametrize("name", ["../a", "a/../../b", "/etc/a", "a\\..\\..\\b", "C:/a", ".."])
def test_a_name_that_leads_out_is_refused(make: Make, archive: str, name: str) -> None:
    refuse(make(archive, ("fine", b"1"), (name, b"2")), "leads out of the archive|cannot be unpacked")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_a_link_or_a_device_in_a_tar_is_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "batch.tar", "w") as archive:
        info = tarfile.TarInfo("a")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    refuse(tmp_path / "batch.tar", "'a' is a link or a device")


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "batch.zip", "w") as archive:
        info = zipfile.ZipInfo("a")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    refuse(tmp_path / "batch.zip", "'a' is a link or a device")


@pytest.mark.parametrize("archive", ["batch.zip", "batch.tar.gz", "batch.tar.xz"])
def test_a_bomb_is_refused_before_it_is_written(make: Make, archive: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NO_BOMB_BYTES", 1 << 20)
    path = make(archive, ("bomb", b"\0" * (8 << 20)))
    assert path.stat().st_size < 20_000
    refuse(path, "decompression bomb")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("archive", ["batch.zip", "batch.tar"])
def test_bounds_hold(make: Make, archive: str) -> None:
    refuse(make(archive, *[(f"{n}", b"x") for n in range(11)]), "more than 10 files", Bounds(files=10))
    refuse(make(archive, ("a", b"x" * 600), ("b", b"x" * 600)), "more than 1,000 bytes", Bounds(size=1000))
    refuse(make(archive, ("a", b"1"), ("a", b"2")), "'a' is in it twice")
    refuse(make(archive, ("a", b"1"), ("a/b", b"2")), "cannot be unpacked")
    refuse(make(archive, ("x" * 300, b"1")), "cannot be unpacked")


def test_a_full_disk_is_seen_before_it_is_full(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FREE_BYTES", 1 << 60)
    refuse(make("batch.tar", ("a", b"1")), "no disk space left")


def test_an_encrypted_zip_is_refused(make: Make) -> None:
    path = make("batch.zip", ("a", b"1"))
    data = bytearray(path.read_bytes())
    data[6] |= 1  # the flag in the member's header, and in the directory
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    refuse(path, "encrypted")


def test_a_header_of_gigabytes_is_not_believed(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 4 << 30
    (tmp_path / "batch.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    refuse(tmp_path / "batch.tar", "a header of its is too large")


@pytest.mark.parametrize("name", ["batch.zip", *TARS])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.7])
def test_a_truncated_archive_is_refused(make: Make, name: str, keep: float) -> None:
    path = make(name, *[(f"{n}", bytes(range(256)) * 40) for n in range(20)])
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    refuse(path, "cannot be unpacked")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from(["batch.zip", "batch.tar", "batch.tar.gz"]))
def test_any_bytes_are_unpacked_or_refused(
    make: Make, tmp_path_factory: pytest.TempPathFactory, data: Any, name: str
) -> None:
    whole = bytearray(make(name, ("a/b", b"x" * 700), ("c", b"y" * 20)).read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, min(len(whole), 2000) - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / name).write_bytes(whole if data.draw(st.booleans()) else data.draw(st.binary(max_size=600)))
    try:
        unpack(folder / name, folder / "out", Bounds(size=1 << 20))
    except DataError:
        assert not (folder / "out").exists()
    assert {path.name for path in folder.iterdir()} <= {name, "out"}
