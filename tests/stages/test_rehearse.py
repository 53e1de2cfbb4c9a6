"""The stage rehearses what export wrote, on rows that were evaluated; nothing of the environment reaches a stage."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fuseline.records import Rehearsal
from fuseline.runtime.signature import PUBLIC_KEY
from fuseline.stages import entry
from tests.stages.conftest import ROOT, run, whole_line


@pytest.fixture(scope="module")
def line(document: dict[str, Any], examples: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    plain = copy.deepcopy(document) | {"pretrain": None, "distill": None}
    with whole_line(tmp_path_factory.mktemp("line"), plain, examples) as folder:
        yield folder


def rehearse(line: Path, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch, rows: int) -> Rehearsal:
    monkeypatch.chdir(line)
    run(copy.deepcopy(document) | {"rehearse": {"rows": rows}}, "rehearse")
    return Rehearsal.read(line / "build/rehearse/rehearsal.json")


def test_what_was_exported_is_answered_as_evaluated(
    line: Path, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    few, more = (rehearse(line, document, monkeypatch, rows) for rows in (3, 6))
    assert (more.problem, more.agreement, more.evaluation_agreement) == (None, 1.0, 1.0)
    assert 3 <= few.rows < more.rows <= 6
    assert set(few.patterns) == {"text", "image", "text+image"}


def test_a_stage_asks_for_no_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(PUBLIC_KEY, "key.pub")
    seen: list[str | None] = []
    entry.run(lambda _: seen.append(os.environ.get(PUBLIC_KEY)))
    assert seen == [None]
