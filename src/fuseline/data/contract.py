"""The data contract: a Great Expectations suite built from params, and the rows that break it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa

from fuseline.errors import DataError
from fuseline.inputs import decode_image
from fuseline.records import Expectation

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # read at import: no call home from a training run

import great_expectations as gx
import great_expectations.expectations as gxe
from great_expectations.data_context.types.base import ProgressBarsConfig


@dataclass(frozen=True)
class Report:
    """What the contract found: per-rule counts, and each bad row's reasons by row number."""

    expectations: list[Expectation]
    reasons: dict[int, list[str]]


@dataclass(frozen=True)
class Rule:
    """One row-level expectation and the sentence that a bad row's reason is made of."""

    name: str
    expectation: Any
    why: Callable[[Any], str]


def check(
    examples: pa.Table, labels: Sequence[str], max_text_chars: int, min_image_side: int, max_image_side: int
) -> Report:
    """Check every example.

    Args:
        examples: a table of `shards.SCHEMA`.

    Returns:
        The report; row numbers index `examples`.
    """
    frame = describe(examples)
    rules = build_rules(labels, max_text_chars, min_image_side, max_image_side)
    suite = gx.ExpectationSuite(name="examples", expectations=[rule.expectation for rule in rules])
    results = _batch(frame).validate(suite, result_format="COMPLETE").results
    report = Report([], {})
    by_column = {(r.expectation_config.type, r.expectation_config.kwargs["column"]): r for r in results}
    for rule in rules:
        result = by_column[(rule.expectation.expectation_type, rule.expectation.column)]
        bad = result.result.get("unexpected_index_list") or []
        if not result.success and not bad:  # a rule that could not be computed must not pass for one that is met
            raise DataError(f"contract rule {rule.name!r} could not be computed: {result.exception_info}")
        for row in bad:
            report.reasons.setdefault(row, []).append(rule.why(frame[rule.expectation.column][row]))
        report.expectations.append(Expectation(rule=rule.name, passed=not bad, failed_rows=len(bad)))
    return report


def describe(examples: pa.Table) -> pd.DataFrame:
    """Reduce examples to the scalar columns that the suite looks at, under a RangeIndex."""
    frame: pd.DataFrame = examples.drop_columns(["image"]).to_pandas()
    pictures = [_describe_image(cell.as_py()) for cell in examples["image"]]
    frame["image_error"], frame["short_side"], frame["long_side"] = (
        zip(*pictures, strict=True) if pictures else ((), (), ())
    )
    frame["text_chars"] = frame["text"].str.strip().str.len()
    has_image = [error is not None for error, _, _ in pictures]  # not of the frame: there None is NaN
    frame["modalities"] = frame["text"].notna().astype(int) + pd.Series(has_image, dtype=int)
    frame["image_error"] = [cell or None for cell in frame["image_error"]]
    frame["meta_error"] = [_meta_error(cell) for cell in examples["meta"].to_pylist()]  # pandas makes None NaN
    return frame


def _describe_image(cell: dict[str, Any] | None) -> tuple[str | None, float, float]:
    """Return (None if absent, "" if sound, else the error; shorter and longer side)."""
    if cell is None:
        return None, float("nan"), float("nan")
    if cell["bytes"] is None:
        return "picture bytes are missing from the shard", float("nan"), float("nan")
    try:
        height, width = decode_image(cell["bytes"]).shape[:2]
    except DataError as error:
        return str(error), float("nan"), float("nan")
    return "", float(min(height, width)), float(max(height, width))


def _meta_error(cell: str | None) -> str | None:
    if cell is None:
        return None
    try:
        return None if isinstance(json.loads(cell), dict) else "meta is not a JSON object"
    except ValueError as error:
        return f"meta is not JSON: {error}"


def build_rules(labels: Sequence[str], max_text_chars: int, min_image_side: int, max_image_side: int) -> list[Rule]:
    """Write the contract down as expectations."""
    between = gxe.ExpectColumnValuesToBeBetween
    return [
        Rule("id is given", gxe.ExpectColumnValuesToNotBeNull(column="id"), lambda _: "id is missing"),
        Rule("id is unique", gxe.ExpectColumnValuesToBeUnique(column="id"), lambda v: f"id {v!r} is not unique"),
        Rule("group is given", gxe.ExpectColumnValuesToNotBeNull(column="group"), lambda _: "group is missing"),
        Rule(
            "group is not blank",
            gxe.ExpectColumnValuesToMatchRegex(column="group", regex=r"\S"),
            lambda _: "group is blank; give each row one, such as its id",
        ),
        Rule("target is given", gxe.ExpectColumnValuesToNotBeNull(column="target"), lambda _: "target is missing"),
        Rule(
            "target is a known label",
            gxe.ExpectColumnValuesToBeInSet(column="target", value_set=list(labels)),
            lambda v: f"target {v!r} is not one of the {len(labels)} labels of params.yaml",
        ),
        Rule(
            "text or image is given",
            between(column="modalities", min_value=1),
            lambda _: "neither text nor image is given",
        ),
        Rule(
            f"text has 1 to {max_text_chars:,} characters",
            between(column="text_chars", min_value=1, max_value=max_text_chars),
            lambda v: f"text has {v:,.0f} characters; expected 1 to {max_text_chars:,}, or null for no text",
        ),
        Rule("image decodes", gxe.ExpectColumnValuesToBeNull(column="image_error"), str),
        Rule(
            f"image sides are {min_image_side} px or more",
            between(column="short_side", min_value=min_image_side),
            lambda v: f"picture's shorter side is {v:.0f} px; at least {min_image_side} are expected",
        ),
        Rule(
            f"image sides are {max_image_side} px or less",
            between(column="long_side", max_value=max_image_side),
            lambda v: f"picture's longer side is {v:.0f} px; at most {max_image_side} are expected",
        ),
        Rule("meta is a JSON object", gxe.ExpectColumnValuesToBeNull(column="meta_error"), str),
    ]


def _batch(frame: pd.DataFrame) -> Any:
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("memory").add_dataframe_asset("examples")
    return asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
