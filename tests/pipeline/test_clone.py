"""The README's promise: a clone holds its data set, and needs no network to give it out."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fuseline.data.shards import read_examples, read_manifest
from tests.pipeline.conftest import ROOT, environment

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the tests do not run in a git checkout"),
]
WITHOUT_NETWORK = """
import socket

def refuse(*what):
    with open({asked!r}, "a") as file:
        print(what, file=file)
    raise OSError("no network in this test")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""


def test_a_clone_pulls_its_data_set_without_a_network(tmp_path: Path) -> None:
    clone, asked, startup = tmp_path / "clone", tmp_path / "asked", tmp_path / "startup"
    startup.mkdir()
    (startup / "sitecustomize.py").write_text(WITHOUT_NETWORK.format(asked=str(asked)))
    (tmp_path / "gitconfig").write_text("[safe]\n\tdirectory = *\n")  # who owns the checkout is not asked here
    env = environment(clone) | {"GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig")}
    env["PYTHONPATH"] = os.pathsep.join([str(startup), env["PYTHONPATH"]])
    for command in (["git", "clone", "--quiet", str(ROOT), str(clone)], ["dvc", "pull", "--quiet", "data.dvc"]):
        done = subprocess.run(
            command, cwd=clone if clone.exists() else tmp_path, env=env, capture_output=True, text=True, check=False,
            timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert read_manifest(clone / "data").rows == 1601
    assert read_examples(clone / "data").num_rows == 1601
    assert not asked.exists(), asked.read_text()
