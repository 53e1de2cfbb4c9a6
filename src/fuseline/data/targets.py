"""What a target must look like, for each kind of task."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Collection
from typing import Any

LABELLED = ("classification", "multilabel")
"""Problems whose rows have labels."""


def target_error(
    kind: str, labels: Collection[str], target: str | None, text: str | None, pair: str | None
) -> str | None:
    """Say what is wrong with a row's target; None if it is sound or absent."""
    return None if target is None else CHECKS[kind](labels, target, text, pair)


def _check_label(labels: Collection[str], target: str, text: str | None, pair: str | None) -> str | None:
    return (
        None if target in labels else f"target {_short(target)} is not one of the {len(labels)} labels of params.yaml"
    )


def _check_labels(labels: Collection[str], target: str, text: str | None, pair: str | None) -> str | None:
    given = read_labels(target)
    if given is None:
        return f"target {_short(target)} is not a JSON list of labels"
    if strange := [label for label in given if label not in labels]:
        return f"label {_short(strange[0])} is not one of the {len(labels)} labels of params.yaml"
    return f"target {_short(target)} names a label twice" if len(set(given)) < len(given) else None


def _check_spans(labels: Collection[str], target: str, text: str | None, pair: str | None) -> str | None:
    spans = _list_of(target, 3)
    if spans is None:
        return f"target {_short(target)} is not a JSON list of [start, end, label]"
    for start, end, label in spans:
        if label not in labels:
            return f"span label {_short(label)} is not one of the {len(labels)} labels of params.yaml"
        if not (_is_int(start) and _is_int(end) and 0 <= start < end <= len(text or "")):
            return f"span [{start}, {end}] does not lie within the text's {len(text or '')} characters"
    ordered = sorted(spans)
    for (_, end, _), (start, _, _) in itertools.pairwise(ordered):
        if start < end:
            return f"two spans overlap at character {start}"
    return None


def _check_answers(labels: Collection[str], target: str, text: str | None, pair: str | None) -> str | None:
    answers = _list_of(target, 2)
    if answers is None:
        return f"target {_short(target)} is not a JSON list of [start, answer]"
    for start, answer in answers:
        if not (_is_int(start) and isinstance(answer, str) and answer and start >= 0):
            return f"answer {_short([start, answer])} is not a start and a text"
        if not (pair or "").startswith(answer, start):
            return f"answer {_short(answer)} does not stand at character {start} of text_pair"
    return None


def _check_text(labels: Collection[str], target: str, text: str | None, pair: str | None) -> str | None:
    return None if target.strip() else "target is blank"


CHECKS: dict[str, Callable[[Collection[str], str, str | None, str | None], str | None]] = {
    "classification": _check_label, "multilabel": _check_labels, "ner": _check_spans, "qa": _check_answers,
    "generation": _check_text,
}  # fmt: skip


def read_labels(target: str) -> list[str] | None:
    """Return the labels of a JSON list; None if it is none."""
    found = _parse(target)
    fits = isinstance(found, list) and all(isinstance(label, str) for label in found)
    return found if fits else None


def names_in(task: str, target: str | None) -> list[str]:
    """Name what a target has of labels: its own, those of its list, of its spans; nothing where it is broken."""
    if task == "multilabel":
        return read_labels(target or "") or []
    if task == "ner":
        return [str(label) for _, _, label in _list_of(target or "", 3) or []]
    return [] if target is None else [target]


def _parse(target: str) -> Any:
    try:
        return json.loads(target)
    except (ValueError, RecursionError):
        return None


def _list_of(target: str, width: int) -> list[list[Any]] | None:
    found = _parse(target)
    fits = isinstance(found, list) and all(isinstance(item, list) and len(item) == width for item in found)
    return found if fits else None


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}…'"
