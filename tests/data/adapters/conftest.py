"""Batches as people write them, and as they are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fuseline.data.adapters import read
from fuseline.data.drafts import DRAFT


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    """Give the folder that `write` writes to."""
    return tmp_path / "batch"


@pytest.fixture
def write(batch: Path) -> Callable[[str, str | bytes], Path]:
    """Give the writer of a file in the batch; it returns the file."""

    def to(name: str, content: str | bytes) -> Path:
        path = batch / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return to


@pytest.fixture(scope="session")
def rows_of() -> Callable[..., list[dict[str, Any]]]:
    """Give the reader of a batch, each row without its nulls."""

    def rows(path: Path, *args: Any, **options: Any) -> list[dict[str, Any]]:
        tables = list(read(path, *args, **options))
        assert all(table.schema.equals(DRAFT) for table in tables)
        found = pa.concat_tables([DRAFT.empty_table(), *tables]).to_pylist()
        return [{name: cell for name, cell in row.items() if cell is not None} for row in found]

    return rows
