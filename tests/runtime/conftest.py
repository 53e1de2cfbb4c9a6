"""What several tests of the runtime do with a bundle."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    """Give a bundle that a test may alter."""
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


@pytest.fixture
def no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail as soon as onnxruntime is asked for anything."""
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *_, **__: pytest.fail("a session was made"))
