"""The page tells how the graph was written, and what came of each way."""

from __future__ import annotations

from collections.abc import Callable

from fuseline.report.exported import variants
from fuseline.report.page import Story, render


def test_the_published_variant_comes_first_and_a_dropped_one_last_with_its_reason(story: Callable[..., Story]) -> None:
    parity = story().parity.model_copy(update={"dropped": {"fp16": "logits are not finite for 3 of 301 test rows"}})
    rows = variants(parity).rows
    assert [row[0] for row in rows] == ["int8 (this bundle)", "fp32", "fp16 (dropped)"]
    assert {len(row) for row in rows} == {len(variants(parity).columns)}
    assert rows[-1][1:] == ["—"] * 6 + ["logits are not finite for 3 of 301 test rows"]
    assert "logits are not finite for 3 of 301 test rows" in render(story(parity=parity))
