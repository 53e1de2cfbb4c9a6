"""Tiny data sets on disk, with pictures, sound, duplicates and conflicts."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from fuseline.data.shards import SCHEMA, read_manifest, write_data_set
from fuseline.survey.rows import Held, read

Rows = list[dict[str, Any]]


@pytest.fixture
def hold(tmp_path: Path) -> Callable[..., Held]:
    """Give the writer of a data set, which reads it again: shards of rows, then task and labels."""

    def write(*shards: Rows, task: str = "classification", labels: tuple[str, ...] = ("red", "blue"),
              supersedes: tuple[int, ...] = (), name: str = "data") -> Held:  # fmt: skip
        folder = tmp_path / name
        write_data_set(folder, "tiny", task, labels, [to_table(rows) for rows in shards])
        manifest = read_manifest(folder)
        entries = [
            shard.model_copy(update={"supersedes": count})
            for shard, count in zip(manifest.shards, supersedes or (0,) * len(shards), strict=True)
        ]
        manifest.model_copy(update={"shards": entries}).write(folder / "manifest.json")
        return read(folder)

    return write


def to_table(rows: Rows) -> pa.Table:
    """Build a shard's table; id and group are made up where they are missing."""
    named = [{"id": f"e{n}", "group": f"g{n}", "target": "red"} | row for n, row in enumerate(rows)]
    return pa.Table.from_pylist(named, schema=SCHEMA)


@pytest.fixture(scope="session")
def tone() -> bytes:
    """Give half a second of a tone that fades in, as WAV."""
    samples = np.sin(np.arange(4000) / 5) * np.linspace(0, 0.5, 4000)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 8000, format="WAV")
    return buffer.getvalue()
