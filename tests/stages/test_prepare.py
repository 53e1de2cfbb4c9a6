"""What no later stage could work with is refused before anything is trained."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from fuseline.data.shards import SCHEMA
from fuseline.errors import DataError
from fuseline.stages.prepare import check_modalities


def without(examples: pa.Table, *columns: str) -> pa.Table:
    """Return the examples with nothing in these columns."""
    rows: list[dict[str, Any]] = [row | dict.fromkeys(columns) for row in examples.to_pylist()]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("modality", ["text", "image"])
def test_a_split_without_a_modality_that_members_use_is_refused(split: str, modality: str, examples: pa.Table) -> None:
    splits = {"train": examples, "val": examples, "test": examples} | {split: without(examples, modality)}
    with pytest.raises(DataError, match=rf"no row with {modality} in {split}; expected some in each split"):
        check_modalities(splits, ["text", "image"])


def test_every_modality_that_is_lacking_is_named_at_once(examples: pa.Table) -> None:
    splits = {"val": without(examples, "image"), "test": without(examples, "text", "image")}
    with pytest.raises(DataError, match="image in val, none with text in test, none with image in test"):
        check_modalities(splits, ["text", "image"])


def test_a_modality_that_no_member_uses_is_not_missed(examples: pa.Table) -> None:
    check_modalities({"test": without(examples, "image")}, ["text"])


def test_one_row_is_enough(examples: pa.Table) -> None:
    rows = pa.concat_tables([without(examples, "image"), examples.slice(0, 1)])
    check_modalities({"test": rows}, ["text", "image"])
