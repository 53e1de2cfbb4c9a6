"""Set a model against an earlier one: numbers, on the rows that both predicted, and what was changed for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fuseline.benchmark.tables import KEPT
from fuseline.comparison.model import Model
from fuseline.evaluation import slices
from fuseline.evaluation.against import Answered, Rows, set_against
from fuseline.evaluation.metrics import LOWER_IS_BETTER
from fuseline.lineage.revisions import BUILT
from fuseline.records import Against, Compared, Estimate, Flips, Record

RESAMPLES = 1000
Cell = float | int | None


class Delta(Record):
    """A number before and after; change is after minus before."""

    before: Cell
    """None where there is none on that side."""
    after: Cell
    change: Cell
    low: float | None = None
    """Of the change's paired interval; None where there is none."""
    high: float | None = None
    rows: int | None = None
    """What the numbers are of, where they are of part of the test rows."""


class Setting(Record):
    """A value before and after; null where there is none on that side."""

    before: Any
    after: Any


class Labels(Record):
    """What the labels after have that those before have not, and the other way round."""

    added: list[str]
    removed: list[str]


class Side(Record):
    """One of the two."""

    revision: str
    commit: str | None
    """None of the workspace."""
    version: str | None
    system: str
    """What the bundle holds, and all numbers are of."""
    members: list[str]
    test_rows: int
    data: str | None
    """Data revision."""
    notes: list[str]


class Difference(Record):
    """Before against after."""

    before: Side
    after: Side
    headline: str
    """The metric that slices and members are told in."""
    confidence: float
    """Coverage of the intervals."""
    rows: int | None
    """Test rows that both predicted, and numbers are of; None where each is of its own test rows."""
    unpaired: str
    """Why so; empty where they are of the same rows."""
    labels: Labels
    notes: list[str]
    """What to bear in mind where numbers are set side by side."""
    metrics: dict[str, Delta]
    classes: dict[str, Delta]
    """F1."""
    slices: dict[str, dict[str, Delta]]
    better: Flips | None
    """Answers that were wrong and are right; None where nothing is paired."""
    worse: Flips | None
    members: dict[str, Delta]
    """Each on the test rows of its own revision."""
    data: dict[str, Delta]
    """Rows of each split."""
    bundle: dict[str, Delta]
    """Bytes, and milliseconds and examples per second by batch size, each as measured in its own run."""
    params: dict[str, Setting]
    """Those that differ, of the ones that stages ran with."""
    code: dict[str, Setting]
    """Digest of the package's sources, and versions of libraries, where they differ."""


def tell_difference(before: Model, after: Model) -> Difference:
    """Compare two models."""
    same = find_same_rows(before, after)
    against = None if isinstance(same, str) else pair(before, after, *same)
    metric, labels = after.evaluation.headline, _labels(before, after)
    found = Difference(
        before=_side(before), after=_side(after), headline=metric, confidence=after.evaluation.confidence,
        rows=None if against is None else against.overall.rows, unpaired=same if isinstance(same, str) else "",
        labels=labels, notes=_note_labels(labels, against is not None),
        metrics=_alone(before, after) if against is None else _gains(against.overall),
        classes=_classes_alone(before, after) if against is None else _classes(against),
        slices=_slices_alone(before, after, metric) if against is None else _slices(against),
        better=None if against is None else against.better, worse=None if against is None else against.worse,
        members=_members(before, after, metric),
        data=_changes(*({} if each.preparation is None else each.preparation.rows for each in (before, after))),
        bundle=_changes(_served(before), _served(after)),
        params=_settings(before.params, after.params), code=_settings(_code(before), _code(after)),
    )  # fmt: skip
    return found if before.task.kind == after.task.kind else _without_changes(found)


def find_same_rows(before: Model, after: Model) -> tuple[list[int], list[int]] | str:
    """Return the places of the test rows that both predicted, in the order of `after`; or why there are none.

    A row is the same where its id is and what is true of it; of ner its text, too.
    """
    for what in ("task", "scheme"):
        if (one := getattr(before.bundle, what)) != (other := getattr(after.bundle, what)):
            return f"they solve different problems ({what} {one}, {other})"
    for each in (before, after):
        if each.predictions is None:
            return _tell_missing(each)
    places = {key: row for row, key in enumerate(before.keys())}
    both = [(places[key], row) for row, key in enumerate(after.keys()) if key in places]
    if not both:
        return "their test sets share no rows"
    theirs, ours = (list(rows) for rows in zip(*both, strict=True))
    if after.task.words and before.units(theirs) != after.units(ours):
        return "they cut texts into other words"
    return theirs, ours


def _tell_missing(model: Model) -> str:
    if model.revision.commit is None:
        return f"{model.revision.name} has no {BUILT['predictions'][1]}, which `dvc repro` makes"
    return f"{model.revision.name} has no answers row by row, as where only what was published is left"


def pair(before: Model, after: Model, theirs: Sequence[int], ours: Sequence[int]) -> Against:
    """Compare on the same rows, of which `theirs` and `ours` are the places."""
    assert after.predictions is not None
    (were_UC, _), (are_UC, truth) = before.take(theirs), after.take(ours)
    than, were_UC = after.task.adopt(before.task, were_UC)
    table = after.predictions.take(np.asarray(ours))
    texts = table["text"].to_pylist() if after.task.words else [None] * table.num_rows
    rows = Rows(table["id"].to_pylist(), np.array(table["group"].to_pylist()), texts, slices.read(table))
    both = Answered.of(than, were_UC, truth), Answered.of(after.task, are_UC, truth)
    return set_against(before.revision.name, *both, rows, RESAMPLES, after.evaluation.confidence)


def _side(model: Model) -> Side:
    changed = sorted({each for what in model.stale.values() for each in what})
    notes = [f"build/ is behind, `dvc repro` brings it up to date: {', '.join(changed)}"] if changed else []
    if model.unknown:
        notes.append(f"whether build/ is up to date is not known: {model.unknown}")
    return Side(
        revision=model.revision.name, commit=model.revision.commit, version=model.revision.version, system=model.system,
        members=model.bundle.members, test_rows=model.evaluation.rows, data=model.data, notes=notes,
    )  # fmt: skip


def _labels(before: Model, after: Model) -> Labels:
    theirs, ours = before.task.labels, after.task.labels
    return Labels(
        added=[label for label in ours if label not in theirs], removed=[label for label in theirs if label not in ours]
    )


def _note_labels(labels: Labels, paired: bool) -> list[str]:
    changes = [f"+ {label}" for label in labels.added] + [f"− {label}" for label in labels.removed]
    if not changes:
        return []
    over = "both are measured over those after" if paired else "each is measured over its own"
    return [f"labels: {', '.join(changes)}; {over}"]


def _without_changes(found: Difference) -> Difference:
    """Tell no change of what is measured where the problems differ: a metric's name is all that they share."""

    def drop(changes: Mapping[str, Delta]) -> dict[str, Delta]:
        return {name: change.model_copy(update={"change": None}) for name, change in changes.items()}

    slices_by = {by: drop(cut) for by, cut in found.slices.items()}
    alone = {name: drop(getattr(found, name)) for name in ("metrics", "classes", "members")}
    return found.model_copy(update={**alone, "slices": slices_by})


def _change(before: Cell, after: Cell, gain: Estimate | None = None, name: str = "", rows: int | None = None) -> Delta:
    """Set two numbers side by side.

    Args:
        gain: of the metric `name`; positive is better.
    """
    change = None if before is None or after is None else after - before
    ends = (None, None) if gain is None else (gain.low, gain.high)
    if name in LOWER_IS_BETTER:
        ends = tuple(None if end is None else -end for end in reversed(ends))  # type: ignore[assignment]
    return Delta(before=before, after=after, change=change, low=ends[0], high=ends[1], rows=rows)


def _changes(before: Mapping[str, Cell], after: Mapping[str, Cell]) -> dict[str, Delta]:
    return {name: _change(before.get(name), after.get(name)) for name in {**before, **after}}


def _gains(found: Compared) -> dict[str, Delta]:
    return {
        name: _change(found.champion[name], found.challenger[name], gain, name) for name, gain in found.gain.items()
    }


def _classes(against: Against) -> dict[str, Delta]:
    found = {label: versus["f1"] for label, versus in against.per_class.items()}
    return {label: _change(f1.champion, f1.challenger, rows=f1.rows) for label, f1 in found.items()}


def _slices(against: Against) -> dict[str, dict[str, Delta]]:
    metric = against.metric
    return {
        by: {
            name: _change(part.champion[metric], part.challenger[metric], part.gain[metric], metric, part.rows)
            for name, part in parts.items()
        }
        for by, parts in against.slices.items()
    }


def _alone(before: Model, after: Model) -> dict[str, Delta]:
    sides = (
        {name: estimate.value for name, estimate in each.evaluation.of(each.system).items()} for each in (before, after)
    )
    return _changes(*sides)


def _classes_alone(before: Model, after: Model) -> dict[str, Delta]:
    return _changes(*({row.label: row.f1 for row in each.per_class()} for each in (before, after)))


def _slices_alone(before: Model, after: Model, metric: str) -> dict[str, dict[str, Delta]]:
    cuts = [_cuts(each, metric) for each in (before, after)]
    return {by: _changes(*(cut.get(by, {}) for cut in cuts)) for by in {**cuts[0], **cuts[1]}}


def _cuts(model: Model, metric: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for by, parts in model.evaluation.slices.items():
        for name, part in parts.items():
            reached = part.ensemble if model.system == "ensemble" else part.student
            if reached is not None and metric in reached:
                found.setdefault(by, {})[name] = reached[metric].value
    return found


def _members(before: Model, after: Model, metric: str) -> dict[str, Delta]:
    sides = (
        {name: metrics[metric].value for name, metrics in each.evaluation.members.items() if metric in metrics}
        for each in (before, after)
    )
    return _changes(*sides)


def _served(model: Model) -> dict[str, Cell]:
    found: dict[str, Cell] = {"bytes": sum(file.bytes for file in model.bundle.files.values())}
    if model.benchmark is not None:
        for name, batch in model.benchmark.batches.items():
            found |= {f"{name}.{key}": getattr(batch, key) for key in KEPT}
    return found


def _code(model: Model) -> dict[str, Any]:
    return {"fuseline": model.bundle.code[:12], **model.bundle.versions}


def _settings(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> dict[str, Setting]:
    """Return what differs, null being as good as no key; nothing where one side tells nothing."""
    if before is None or after is None:
        return {}
    return {
        key: Setting(before=before.get(key), after=after.get(key))
        for key in sorted({**before, **after})
        if before.get(key) != after.get(key)
    }
