"""Champion and challenger side by side: overall, by class, by slice, and what flipped."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fuseline.evaluation import against
from fuseline.evaluation.against import Answered, Rows, compare, find_flips, set_against
from fuseline.tasks.base import Floats
from fuseline.tasks.classification import Classification
from fuseline.tasks.multilabel import MultiLabel
from fuseline.tasks.ner import Ner

LABELS = ["red", "green", "blue"]


def sure(*answers: int, of: int = 3, by: float = 0.8) -> Floats:
    """Give probabilities that name these classes."""
    rest = (1 - by) / (of - 1)
    found: Floats = np.full((len(answers), of), rest)
    found[np.arange(len(answers)), answers] = by
    return found


def rows(count: int, texts: list[str] | None = None) -> Rows:
    slices = {"half": {"first": np.arange(count) < count / 2, "second": np.arange(count) >= count / 2}}
    return Rows([f"row {n}" for n in range(count)], np.arange(count), texts or [None] * count, slices)


COLOURS = Classification(LABELS)
TRUE = COLOURS.assume_truth([0, 1, 2, 1])
BEFORE = Answered.of(COLOURS, sure(0, 1, 0, 0), TRUE)  # right: 0, 1
AFTER = Answered.of(COLOURS, sure(0, 2, 2, 1, by=0.9), TRUE)  # right: 0, 2, 3
FOUR = rows(4)


def test_what_flipped_is_named_with_both_answers() -> None:
    better, worse = find_flips(BEFORE, AFTER, FOUR)
    assert [(flip.id, flip.true, flip.champion, flip.challenger) for flip in better.shown] == [
        ("row 2", "blue", "red", "blue"), ("row 3", "green", "red", "green"),
    ]  # fmt: skip
    assert [(flip.id, flip.true, flip.champion, flip.challenger) for flip in worse.shown] == [
        ("row 1", "green", "green", "blue")
    ]
    assert (better.count, worse.count) == (2, 1)
    assert (worse.shown[0].champion_probability, worse.shown[0].challenger_probability) == pytest.approx((0.8, 0.9))


def test_the_surest_flips_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(against, "SHOWN", 1)
    after = np.vstack([sure(0), sure(2), sure(2, by=0.5), sure(1, by=0.6)])
    better, _ = find_flips(BEFORE, Answered.of(COLOURS, after, TRUE), FOUR)
    assert (better.count, [flip.id for flip in better.shown]) == (2, ["row 3"])


def test_of_several_labels_each_flips_by_itself() -> None:
    task = MultiLabel(["a", "b"], [0.5, 0.2])
    no, yes = [0.9, 0.1], [0.1, 0.9]
    before, after = np.array([no, yes, yes, no]), np.array([yes, yes, yes, [0.75, 0.25]])
    truth = task.assume_truth([[1, 1], [1, 0]])
    better, worse = find_flips(Answered.of(task, before, truth), Answered.of(task, after, truth), rows(2))
    assert [(flip.id, flip.unit, flip.champion, flip.challenger) for flip in better.shown] == [
        ("row 0", "a", "no", "yes")
    ]
    assert [(flip.id, flip.unit, flip.champion, flip.challenger) for flip in worse.shown] == [
        ("row 1", "b", "no", "yes")
    ]


def test_of_entities_each_word_flips_by_itself_in_a_sound_sequence() -> None:
    task = Ner(["PER"], "bio")
    target = json.dumps([[0, 11, "PER"]])
    before, after = sure(1, 0, 0), sure(1, 2, 0)
    texts = ["Grace Brown ran"]
    truth = task.find_truth([[1, 2, 0]], [target], texts)
    better, worse = find_flips(Answered.of(task, before, truth), Answered.of(task, after, truth), rows(1, texts))
    assert [(flip.unit, flip.true, flip.champion, flip.challenger) for flip in better.shown] == [
        ("Brown [6:11]", "I-PER", "O", "I-PER")
    ]
    assert worse.count == 0


def test_a_comparison_counts_and_measures_the_chosen_rows() -> None:
    three = np.array([True, True, True, False])
    found = compare(BEFORE.take(three), AFTER.take(three), np.arange(3), 50, 0.9)
    assert (found.rows, found.units, found.better, found.worse) == (3, 3, 1, 1)
    assert (found.champion["accuracy"], found.challenger["accuracy"]) == pytest.approx((2 / 3, 2 / 3))
    assert found.gain["accuracy"].value == pytest.approx(0)


def test_everything_is_set_against_the_champion() -> None:
    found = set_against("v1.0.0", BEFORE, AFTER, FOUR, 50, 0.9)
    assert found.overall.gain["accuracy"].value == pytest.approx(0.25)
    assert {name: part.gain["accuracy"].value for name, part in found.slices["half"].items()} == {
        "first": pytest.approx(-0.5), "second": pytest.approx(1.0),
    }  # fmt: skip
    recall = found.per_class["green"]["recall"]
    assert (recall.rows, recall.champion, recall.challenger) == (2, 0.5, 0.5)
    assert found.per_class["blue"]["recall"].challenger == 1.0
    assert found.power is not None
    assert found.power.equal_passes == pytest.approx(0.5)
