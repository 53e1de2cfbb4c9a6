"""What is counted and spread is what a hand would count."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from fuseline.data.split import ABSENT
from fuseline.records import DataManifest
from fuseline.survey.numbers import (
    choose_gallery,
    count_labels,
    count_patterns,
    count_sides,
    count_splits,
    count_targets,
    describe_shards,
    round_up,
    spread,
    spread_all,
)
from fuseline.survey.rows import Held

Hold = Callable[..., Held]
SPLITS = np.array([0, 0, 1, 2, ABSENT], np.int8)


def manifest(task: str, *labels: str) -> DataManifest:
    return DataManifest(name="tiny", task=task, labels=list(labels), rows=0, shards=[])


def test_labels_are_counted_per_split_those_without_rows_and_unknown_ones_too() -> None:
    targets = pa.chunked_array([["red", "blue", "red", "mauve", None]])
    assert count_labels(manifest("classification", "red", "green", "blue"), targets, SPLITS) == {
        "red": {"train": 1, "val": 1, "test": 0, "none": 0},
        "green": {"train": 0, "val": 0, "test": 0, "none": 0},
        "blue": {"train": 1, "val": 0, "test": 0, "none": 0},
        "mauve": {"train": 0, "val": 0, "test": 1, "none": 0},
        "none": {"train": 0, "val": 0, "test": 0, "none": 1},
    }


def test_of_spans_each_counts_and_broken_targets_count_nothing() -> None:
    targets = pa.chunked_array([['[[0, 2, "per"], [3, 4, "per"]]', '[[0, 1, "loc"]]', "[]", "{", None, "[[1]]", "7"]])
    assert count_targets("ner", targets) == {"per": 2, "loc": 1}


@pytest.mark.parametrize("task", ["qa", "generation"])
def test_a_task_without_labels_has_no_balance(task: str) -> None:
    assert count_labels(manifest(task), pa.chunked_array([["x"] * 5]), SPLITS) == {}


def test_splits_are_counted_with_what_is_in_none() -> None:
    assert count_splits(SPLITS) == {"train": 2, "val": 1, "test": 1, "none": 1}


def test_patterns_name_what_rows_hold_most_frequent_first(
    hold: Hold, picture: Callable[..., bytes], tone: bytes
) -> None:
    image, audio = {"bytes": picture(), "path": None}, {"bytes": tone, "path": None}
    held = hold([{"text": "a", "image": image}, {"text": "b"}, {"text": "c"}, {"text": "d", "text_pair": "e"},
                 {"audio": audio, "image": image, "image_pair": image}, {}])  # fmt: skip
    assert count_patterns(held.live) == {
        "text": 2, "nothing": 1, "text + image": 1, "two images + audio": 1, "two texts": 1,
    }  # fmt: skip


def test_what_is_measured_is_spread_and_what_no_row_has_is_left_out(
    hold: Hold, picture: Callable[..., bytes], tone: bytes
) -> None:
    held = hold([{"text": " abc "}, {"image": {"bytes": picture(width=40, height=30), "path": None}},
                 {"audio": {"bytes": tone, "path": None}}])  # fmt: skip
    found = spread_all(held.live, "classification")
    assert {name: (one.rows, one.low, one.high, one.unit) for name, one in found.items()} == {
        "Text": (1, 3, 3, "characters"), "Shorter side of pictures": (1, 30, 30, "px"),
        "Longer side of pictures": (1, 40, 40, "px"), "Recording": (1, 0.5, 0.5, "s"),
    }  # fmt: skip
    assert count_sides(held.live) == {"40 × 30": 1}


def test_bins_have_a_round_width_and_hold_every_value() -> None:
    found = spread(np.array([3.0, 3, 4, 9, 50]), "characters")
    assert found is not None
    assert (found.low, found.median, found.high) == (3, 4, 50)
    assert found.edges == [*range(2, 54, 2)]
    assert found.counts == [2, 1, 0, 1, *[0] * 20, 1]
    assert found.over == 0


def test_what_lies_far_out_is_counted_beyond_the_bins() -> None:
    found = spread(np.array([1.0] * 500 + [2.0] * 499 + [9_000.0]), "characters")
    assert found is not None
    assert (found.edges, found.counts, found.over) == ([1, 2, 3], [500, 499], 1)


@pytest.mark.parametrize(("values", "unit", "edges"), [
    ([7.0], "px", [7, 8]), ([0.0], "px", [0, 1]), ([0.25, 0.25], "s", [0.25, 0.26]),
])  # fmt: skip
def test_one_value_gets_one_bin(values: list[float], unit: str, edges: list[float]) -> None:
    found = spread(np.array(values), unit)
    assert found is not None
    assert (found.edges, found.counts) == (edges, [len(values)])


def test_no_value_has_no_spread() -> None:
    assert spread(np.zeros(0), "px") is None


@pytest.mark.parametrize(("width", "whole", "step"), [
    (0.3, True, 1.0), (1.01, True, 2.0), (2.0, True, 2.0), (60.0, True, 100.0), (0.03, False, 0.05), (0.0, False, 0.01),
])  # fmt: skip
def test_widths_are_rounded_up_to_one_two_or_five(width: float, whole: bool, step: float) -> None:
    assert round_up(width, whole) == pytest.approx(step)


def test_shards_say_what_was_replaced_since(hold: Hold) -> None:
    held = hold([{"text": "a"}, {"text": "b"}], [{"text": "c"}], supersedes=(0, 1))
    assert [(one.rows, one.superseded, one.supersedes) for one in describe_shards(held)] == [(2, 1, 0), (1, 0, 1)]
    assert held.rows.tolist() == [1, 2]


def test_the_gallery_shows_each_label_rich_rows_first_and_the_same_in_any_order(
    hold: Hold, picture: Callable[..., bytes]
) -> None:
    rows = [{"id": f"r{n}", "group": f"r{n}", "text": f"text {n}", "target": "red" if n % 3 else "blue"}
            for n in range(9)]  # fmt: skip
    rows[4]["image"] = {"bytes": picture(), "path": None}
    held, turned = hold(rows, name="one"), hold(rows[::-1], name="other")
    found = [self_named(one, choose_gallery(one.manifest, one, counts(one), 96, 2)) for one in (held, turned)]
    assert found[0] == found[1]
    assert {label: len(ids) for label, ids in found[0].items()} == {"red": 2, "blue": 2}
    assert found[0]["red"][0] == "r4"


def counts(held: Held) -> dict[str, dict[str, int]]:
    return count_labels(held.manifest, held.live["target"], np.zeros(len(held.rows), np.int8))


def self_named(held: Held, gallery: dict[str, list[int]]) -> dict[str, list[str]]:
    return {label: [held.table["id"][row].as_py() for row in rows] for label, rows in gallery.items()}


def test_with_many_labels_the_most_frequent_are_shown(hold: Hold) -> None:
    labels = tuple(f"l{n}" for n in range(6))
    rows = [{"text": f"{label} {n}", "target": label} for n, label in enumerate((*labels, "l4", "l5"))]
    held = hold(rows, labels=labels)
    assert set(choose_gallery(held.manifest, held, counts(held), 2, 7)) == {"l4", "l5"}


def test_of_spans_a_row_is_shown_once(hold: Hold) -> None:
    rows = [{"text": f"ab {n}", "target": '[[0, 1, "per"], [1, 2, "loc"]]'} for n in range(4)]
    held = hold(rows, task="ner", labels=("per", "loc"))
    found = choose_gallery(held.manifest, held, counts(held), 96, 2)
    assert {label: len(rows) for label, rows in found.items()} == {"per": 2, "loc": 2}
    assert len({row for rows in found.values() for row in rows}) == 4


def test_rows_count_for_each_of_their_labels_and_are_shown_for_one(hold: Hold) -> None:
    rows = [{"text": f"ab {n}", "target": '["red", "blue"]' if n % 2 else "[]"} for n in range(6)]
    held = hold(rows, task="multilabel", labels=("red", "blue"))
    assert {label: each["train"] for label, each in counts(held).items()} == {"red": 3, "blue": 3, "none": 3}
    found = choose_gallery(held.manifest, held, counts(held), 96, 1)
    assert {label: len(rows) for label, rows in found.items()} == {"red": 1, "blue": 1, "none": 1}
    assert len({row for rows in found.values() for row in rows}) == 3


def test_without_labels_some_rows_are_shown(hold: Hold) -> None:
    held = hold([{"text": f"t{n}"} for n in range(30)], task="generation", labels=())
    assert [len(rows) for rows in choose_gallery(held.manifest, held, {}, 96, 3).values()] == [9]
