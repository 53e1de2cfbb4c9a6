"""The data contract: a Great Expectations suite built from params, and what breaks it.

It looks at scalars alone, the facts of each row: no picture is decoded here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import chi2_contingency

from fuseline.config import Task, Validate
from fuseline.data.duplicates import mix
from fuseline.data.facts import KEYS, PICTURES, meta_error
from fuseline.data.targets import LABELLED, read_labels, target_error
from fuseline.errors import DataError
from fuseline.inputs.boxes import BOXES, boxes_error
from fuseline.records import Expectation

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # read at import: no call home from a training run

import great_expectations as gx
import great_expectations.expectations as gxe
from great_expectations.data_context.types.base import ProgressBarsConfig

SCALARS = ("id", "group", "text", "text_pair", "target", "split", "meta", BOXES)
"""Columns of an example that the contract reads; of the files it needs their facts alone."""
MEASURES = ("text_chars", "text_odd", "short_side", "long_side", "audio_seconds", "audio_rate")
FACTS = (*KEYS, *MEASURES, "image_error", "audio_error", PICTURES)
"""Facts that the contract reads."""
BLANK = "group is blank; give each row one, such as its id"
CHANCE = 1e-3
"""Drift that chance explains with a higher probability than this is no drift."""


@dataclass(frozen=True)
class Report:
    """What the contract found: per-rule counts, and each bad row's reasons by row number."""

    expectations: list[Expectation]
    reasons: dict[int, dict[str, str]]
    """Row number → rule's key → why."""
    results: list[Any] = field(default_factory=list)
    """Great Expectations' own results, for its Data Docs."""

    @property
    def broken(self) -> list[str]:
        """What the data as a whole breaks, in words."""
        return [one.why for one in self.expectations if not one.passed and one.why]


@dataclass(frozen=True)
class Rule:
    """One expectation, and the sentence that a reason is made of.

    Args:
        key: the rule's name in a waiver.
        soft: a person may release a row from it; what breaks a hard one cannot be trained on.
    """

    key: str
    name: str
    expectation: Any
    why: Callable[[Any], str]
    soft: bool = False


def describe(examples: pa.Table, facts: pa.Table, task: Task) -> pd.DataFrame:
    """Reduce examples to the scalar columns that the suite looks at.

    Args:
        examples: columns SCALARS of some rows.
        facts: columns FACTS of the same rows.
    """
    frame: pd.DataFrame = examples.select(["id", "group", "target", "split"]).to_pandas()
    for name in MEASURES:
        frame[name] = facts[name].cast(pa.float64()).to_pandas()
    for name in KEYS:
        frame[name] = pc.fill_null(facts[name], 0).to_numpy()
    given = [facts[name].is_valid().to_numpy() for name in ("text_chars", "image_error", "audio_error")]
    frame["modalities"] = np.sum(given, axis=0)
    blank = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(examples["group"]), ""), False)
    frame["group_error"] = _sparse(examples.num_rows, dict.fromkeys(np.flatnonzero(blank.to_numpy()).tolist(), BLANK))
    _measure_pictures(frame, facts[PICTURES])
    for name in ("image_error", "audio_error"):
        frame[name] = pc.if_else(pc.equal(facts[name], ""), None, facts[name]).to_pandas()
    frame["placed"] = examples[BOXES].is_valid().to_numpy()
    frame["boxes_error"] = _sparse(examples.num_rows, _boxes_errors(examples, given[1]))
    frame["meta_error"] = _sparse(examples.num_rows, _meta_errors(examples["meta"]))
    frame["target_error"] = _sparse(examples.num_rows, _target_errors(examples, task))
    return frame


WORST = {"short_side": np.argmin, "long_side": np.argmax, "aspect": np.argmax}
"""By measure of pictures, which of several the contract looks at."""


def _measure_pictures(frame: pd.DataFrame, pictures: pa.ChunkedArray) -> None:
    """Add how many pictures rows have and their ratio of sides; of several, take each measure's worst and say whose."""
    lists = pictures.combine_chunks()
    rows, sides = pc.list_parent_indices(lists).to_numpy(), lists.flatten()
    own = {name: sides.field(name).to_numpy().astype(float) for name in ("short_side", "long_side")}
    own["aspect"] = own["long_side"] / own["short_side"]
    kinds, starts, counts = np.unique(rows, return_index=True, return_counts=True)
    spans = list(zip(starts.tolist(), counts.tolist(), strict=True))
    frame["aspect"] = frame["long_side"] / frame["short_side"]
    frame["pictures"] = _with(pd.Series(np.where(frame["short_side"].notna(), 1.0, np.nan)), kinds, counts)
    for name, find_worst in WORST.items():
        places = [int(find_worst(own[name][start : start + count])) for start, count in spans]
        worst = [start + place for (start, _), place in zip(spans, places, strict=True)]
        frame[name] = _with(frame[name], kinds, own[name][worst])
        told = [f"picture {place + 1} of {count}: " for (_, count), place in zip(spans, places, strict=True)]
        frame[f"{name}_of"] = _sparse(len(frame), dict(zip(kinds.tolist(), told, strict=True)))


def _with(column: pd.Series, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return a column of numbers with other values in some rows."""
    found = column.to_numpy(dtype=float, copy=True)
    found[rows] = values
    return found


def _sparse(rows: int, cells: Mapping[int, str | None]) -> pd.Series:
    """Make a column of a few cells by row; what cannot be wrong need not be looked at."""
    column = np.full(rows, None, object)
    for row, cell in cells.items():
        column[row] = cell
    return pd.Series(column, dtype="str")


def _meta_errors(column: pa.ChunkedArray) -> dict[int, str | None]:
    given = pc.fill_null(pc.not_equal(column, "{}"), False)
    rows = np.flatnonzero(given.to_numpy())
    cells = column.take(pa.array(rows)).to_pylist()
    return {row: meta_error(cell) for row, cell in zip(rows.tolist(), cells, strict=True)}


def _boxes_errors(examples: pa.Table, pictured: np.ndarray) -> dict[int, str | None]:
    rows = np.flatnonzero(examples[BOXES].is_valid().to_numpy())
    cells = (examples[name].take(pa.array(rows)).to_pylist() for name in (BOXES, "text"))
    return {
        row: boxes_error(cell, text, bool(pictured[row])) for row, cell, text in zip(rows.tolist(), *cells, strict=True)
    }


def _target_errors(examples: pa.Table, task: Task) -> dict[int, str | None]:
    columns = [examples[name] for name in ("target", "text", "text_pair")]
    rows = np.arange(examples.num_rows)
    if task.kind == "classification":
        known = pc.is_in(examples["target"], value_set=pa.array(task.labels, pa.string()))
        rows = np.flatnonzero(~known.to_numpy(zero_copy_only=False))
    columns = [column.take(pa.array(rows)).to_pylist() for column in columns]
    cells = zip(rows.tolist(), *columns, strict=True)
    return {row: target_error(task.kind, task.labels, *rest) for row, *rest in cells}


def check(frame: pd.DataFrame, task: Task, rules: Validate, starts: Sequence[int] = ()) -> Report:
    """Check every row, and the rows as a whole.

    Args:
        frame: what `describe` gave, under a RangeIndex.
        starts: the row with which each shard but the first begins.
    """
    report = Report([], {})
    _check_rows(frame, build_rules(rules), report)
    _check_whole(summarise(frame, task, starts), build_whole_rules(task, rules), report)
    return report


def check_rows(frame: pd.DataFrame, rules: Validate) -> Report:
    """Check every row alone, as of a batch that says nothing of the whole."""
    report = Report([], {})
    _check_rows(frame, build_rules(rules), report)
    return report


def _check_rows(frame: pd.DataFrame, rules: Sequence[Rule], report: Report) -> None:
    for rule, result in _run(frame, rules, "rows", report):
        bad = result.result.get("unexpected_index_list") or []
        if not result.success and not bad:  # a rule that could not be computed must not pass for one that is met
            raise DataError(f"contract rule {rule.name!r} could not be computed: {result.exception_info}")
        column = frame[rule.expectation.column]
        place = frame[f"{column.name}_of"].fillna("") if column.name in WORST else None
        for row in bad:
            which = "" if place is None else place[row]
            report.reasons.setdefault(int(row), {})[rule.key] = which + rule.why(column[row])
        report.expectations.append(Expectation(rule=rule.name, passed=not bad, failed_rows=len(bad)))


def _check_whole(summary: Mapping[str, float], rules: Sequence[Rule], report: Report) -> None:
    for rule, result in _run(pd.DataFrame([summary]), rules, "data set", report):
        passed = bool(result.success)
        why = "" if passed else rule.why(summary[rule.expectation.column])
        report.expectations.append(Expectation(rule=rule.name, passed=passed, failed_rows=0, why=why))


def _run(frame: pd.DataFrame, rules: Sequence[Rule], name: str, report: Report) -> list[tuple[Rule, Any]]:
    suite = gx.ExpectationSuite(name=name, expectations=[rule.expectation for rule in rules])
    found = _batch(frame, name).validate(suite, result_format="COMPLETE")
    report.results.append(found)
    by_column = {(r.expectation_config.type, r.expectation_config.kwargs["column"]): r for r in found.results}
    return [(rule, by_column[(rule.expectation.expectation_type, rule.expectation.column)]) for rule in rules]


def build_rules(rules: Validate) -> list[Rule]:
    """Write down what each row must keep to."""
    between, no = gxe.ExpectColumnValuesToBeBetween, gxe.ExpectColumnValuesToBeNull
    given, chars = gxe.ExpectColumnValuesToNotBeNull, rules.max_text_chars
    return [
        Rule("id_given", "id is given", given(column="id"), lambda _: "id is missing"),
        Rule("id_unique", "id is unique", gxe.ExpectColumnValuesToBeUnique(column="id"),
             lambda v: f"id {v!r} is not unique"),
        Rule("group_given", "group is given", given(column="group"), lambda _: "group is missing"),
        Rule("group_blank", "group is not blank", no(column="group_error"), str),
        Rule("target_given", "target is given", given(column="target"), lambda _: "target is missing"),
        Rule("target", "target has the form of the task", no(column="target_error"), str),
        Rule("split", "split is train, val or test where it is given",
             gxe.ExpectColumnValuesToBeInSet(column="split", value_set=["train", "val", "test"]),
             lambda v: f"split {v!r} is not one of train, val and test"),
        Rule("modalities", "text, image or audio is given", between(column="modalities", min_value=1),
             lambda _: "neither text, image nor audio is given"),
        Rule("text_length", f"text has 1 to {chars:,} characters",
             between(column="text_chars", min_value=1, max_value=chars),
             lambda v: f"text has {v:,.0f} characters; expected 1 to {chars:,}, or null for no text", soft=True),
        Rule("text_odd", f"text has at most {rules.max_odd_chars:.0%} characters that no language writes with",
             between(column="text_odd", max_value=rules.max_odd_chars),
             lambda v: f"{v:.0%} of the text's characters are control or replacement characters; "
                       f"at most {rules.max_odd_chars:.0%} are expected", soft=True),
        Rule("image", "image decodes", no(column="image_error"), str),
        Rule("image_count", f"a row has at most {rules.max_pictures} pictures",
             between(column="pictures", max_value=rules.max_pictures),
             lambda v: f"row has {v:.0f} pictures; at most {rules.max_pictures} are expected (validate.max_pictures)"),
        Rule("image_small", f"image sides are {rules.min_image_side} px or more",
             between(column="short_side", min_value=rules.min_image_side),
             lambda v: f"picture's shorter side is {v:.0f} px; at least {rules.min_image_side} are expected",
             soft=True),
        Rule("image_large", f"image sides are {rules.max_image_side} px or less",
             between(column="long_side", max_value=rules.max_image_side),
             lambda v: f"picture's longer side is {v:.0f} px; at most {rules.max_image_side} are expected",
             soft=True),
        Rule("image_aspect", f"image sides differ by a factor of {rules.max_image_aspect:g} or less",
             between(column="aspect", max_value=rules.max_image_aspect),
             lambda v: f"picture's sides differ by a factor of {v:.1f}; at most {rules.max_image_aspect:g} is expected",
             soft=True),
        Rule("audio", "audio decodes", no(column="audio_error"), str),
        Rule("audio_length", f"audio lasts {rules.min_audio_seconds:g} to {rules.max_audio_seconds:g} seconds",
             between(column="audio_seconds", min_value=rules.min_audio_seconds, max_value=rules.max_audio_seconds),
             lambda v: f"recording lasts {v:.2f} s; expected {rules.min_audio_seconds:g} to "
                       f"{rules.max_audio_seconds:g}", soft=True),
        Rule("audio_rate", f"audio has {rules.min_audio_rate:,} samples a second or more",
             between(column="audio_rate", min_value=rules.min_audio_rate),
             lambda v: f"recording has {v:,.0f} samples a second; at least {rules.min_audio_rate:,} are expected",
             soft=True),
        Rule("boxes", "boxes are of stretches of the text, in the picture", no(column="boxes_error"), str),
        Rule("meta", "meta is a JSON object", no(column="meta_error"), str),
    ]  # fmt: skip


def build_whole_rules(task: Task, rules: Validate) -> list[Rule]:
    """Write down what the rows as a whole must keep to."""

    def at_most(key: str, bound: float, what: str, name: str | None = None) -> Rule:
        expectation = gxe.ExpectColumnMaxToBeBetween(column=key, max_value=bound + 1e-9)
        asked = f"at most {bound:.1%} allowed by validate.{name or f'max_{key}'}"
        return Rule(key, f"{what}: {bound:.1%} or less", expectation, lambda v: f"{what}: {v:.1%}, {asked}")

    whole = [
        *(
            at_most(f"missing_{name}", bound, f"rows without {name}", f"max_missing.{name}")
            for name, bound in rules.max_missing
        ),
        at_most("duplicates", rules.max_duplicates, "rows that repeat an earlier one"),
        at_most("conflicts", rules.max_conflicts, "rows whose content stands under another target too"),
    ]
    if task.kind in LABELLED:
        least = rules.min_class_share
        whole += [
            Rule("smallest_class", f"each class has {least:.2%} of the rows or more",
                 gxe.ExpectColumnMinToBeBetween(column="smallest_class", min_value=least),
                 lambda v: f"the smallest class has {v:.2%} of the rows, at least {least:.2%} "
                           "expected by validate.min_class_share"),
            at_most("drift", rules.max_drift, "distance of the newest shards' class shares from those before them"),
        ]  # fmt: skip
    return whole


def summarise(frame: pd.DataFrame, task: Task, starts: Sequence[int]) -> dict[str, float]:
    """Reduce the rows to the numbers that the whole is judged by."""
    rows = max(len(frame), 1)
    key = mix([frame[name].to_numpy() for name in KEYS])
    same = pd.DataFrame({"key": key, "target": pd.factorize(frame["target"])[0]})
    repeats = same.duplicated()
    targets = same["key"][~repeats]
    conflicting = targets[targets.duplicated()]
    summary = {
        "missing_text": float(frame["text_chars"].isna().mean()),
        "missing_image": float(1 - _has(frame, "short_side", "image_error").mean()),
        "missing_audio": float(1 - _has(frame, "audio_seconds", "audio_error").mean()),
        "duplicates": float(repeats.sum() / rows),
        "conflicts": float(same["key"].isin(conflicting).sum() / rows),
    }
    if task.kind in LABELLED:
        labels = frame["target"] if task.kind == "classification" else _one_by_one(frame["target"])
        counts, given = labels.value_counts(), max(frame["target"].notna().sum(), 1)
        summary["smallest_class"] = float(min(counts.get(label, 0) for label in task.labels) / given)
        summary["drift"] = drift(labels, starts)
    return summary


def _has(frame: pd.DataFrame, measure: str, error: str) -> pd.Series:
    return frame[measure].notna() | frame[error].notna()


def _one_by_one(targets: pd.Series) -> pd.Series:
    """Give each label of a list a place of its own, under its row's number; a broken list has none."""
    lists = targets.map(lambda target: read_labels(target) if isinstance(target, str) else None)
    return lists.explode().dropna()


def drift(targets: pd.Series, starts: Sequence[int]) -> float:
    """Return how far the class shares have moved: the largest total variation distance that chance does not explain.

    From each shard on, what came since is compared with what came before. Were it the newest shard alone, a small one
    after it would hide a large one; so only rows that outweigh a drift do.

    Args:
        targets: under their rows' numbers.
    """
    codes, labels = pd.factorize(targets)
    shards = np.searchsorted(np.asarray(starts, np.int64), targets.index.to_numpy(), side="right")
    counts = np.zeros((len(starts) + 1, len(labels)))
    np.add.at(counts, (shards[codes >= 0], codes[codes >= 0]), 1)
    before = counts.cumsum(0)[:-1]
    pairs = np.stack([before, counts.sum(0) - before], axis=1)
    pairs = pairs[(pairs.sum(2) > 0).all(1)]
    distances = np.abs(np.diff(pairs / pairs.sum(2, keepdims=True), axis=1)).sum((1, 2)) / 2
    for one in np.argsort(-distances):
        if distances[one] > 0 and chi2_contingency(pairs[one]).pvalue <= CHANCE:
            return float(distances[one])
    return 0.0


def _batch(frame: pd.DataFrame, name: str) -> Any:
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("memory").add_dataframe_asset(name)
    return asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
