"""The `fuseline` command answers, and tells in one sentence what the user can mend."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

ROWS = '{"id": 7, "text": "the frog"}\n{"text": "sea"}\n'


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text(ROWS)
    return tmp_path / "rows.jsonl"


def fuseline(*arguments: str | Path, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from fuseline.cli import app; app()", *map(str, arguments)]
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, timeout=120, env=plain
    )


def test_predict_writes_a_line_per_row(bundle: Path, rows: Path, tmp_path: Path, labels: list[str]) -> None:
    done = fuseline("predict", bundle, "--input", rows, "--output", tmp_path / "answers.jsonl")
    assert done.returncode == 0, done.stderr
    first, second = map(json.loads, (tmp_path / "answers.jsonl").read_text().splitlines())
    assert first["id"] == 7
    assert "id" not in second
    assert first["label"] in labels
    assert first["probability"] == max(first["probabilities"].values())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl", "rows.jsonl"]


def test_a_bad_row_is_named_and_nothing_half_written_is_left(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(ROWS + "{\n")
    done = fuseline("predict", bundle, "--input", tmp_path / "rows.jsonl", "--output", tmp_path / "answers.jsonl")
    assert done.returncode == 1
    assert "rows.jsonl, line 3: not JSON" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_an_output_that_cannot_be_written_is_named(bundle: Path, rows: Path) -> None:
    done = fuseline("predict", bundle, "--input", rows, "--output", rows / "x")
    assert done.returncode == 1
    assert done.stderr == f"error: {rows / 'x'}: cannot be written (Not a directory)\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_in_one_line(bundle: Path, rows: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        done = fuseline("predict", bundle, "--input", rows, stdout=full)
    finally:
        os.close(full)
    assert done.returncode == 1
    assert done.stderr == "error: no disk space left; free some and run again\n"


def test_a_folder_without_a_bundle_is_named(tmp_path: Path, rows: Path) -> None:
    done = fuseline("predict", tmp_path / "none", "--input", rows)
    assert done.returncode == 1
    assert "expected a bundle, such as champion/ after `make retrain`" in done.stderr


def test_somebody_half_way_through_an_edit_can_look_and_roll_back(tmp_path: Path) -> None:
    publish = "publish: {name: fusion, remote: null, accept_incomparable: null}\n"
    (tmp_path / "params.yaml").write_text(f"train:\n  seed:\n{publish}")
    (tmp_path / "data.dvc").write_text("outs:\n- md5: abc.dir\n  path: data\n")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    looked = fuseline("status", "--repo", tmp_path)
    assert looked.returncode == 0, looked.stderr
    assert "champion  none yet" in looked.stdout
    rolled = fuseline("promote", "v1.0.0", "--repo", tmp_path)
    assert rolled.stderr == "error: there is no version 'v1.0.0' of fusion; registered: none\n"


def test_a_bundle_is_signed_and_verified(bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    for name in ("ours", "other"):
        key = Ed25519PrivateKey.generate()
        (tmp_path / name).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        (tmp_path / f"{name}.pub").write_bytes(public)
    assert "no key given, so no signature was asked for" in fuseline("verify", copy).stdout
    assert "error: " in fuseline("verify", copy, "--key", tmp_path / "ours.pub").stderr
    assert "bundle.sig written" in fuseline("sign", copy, "--key", tmp_path / "ours").stdout
    assert "signed by the owner of" in fuseline("verify", copy, "--key", tmp_path / "ours.pub").stdout
    done = fuseline("verify", copy, "--key", tmp_path / "other.pub")
    assert (done.returncode, done.stdout) == (1, "")
    assert "another key signed it" in done.stderr


def test_what_was_altered_is_not_signed(bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    (copy / "README.md").write_text("altered")
    done = fuseline("sign", copy, "--key", tmp_path / "key")
    assert "README.md: altered" in done.stderr
    assert not (copy / "bundle.sig").exists()
