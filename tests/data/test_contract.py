"""The data contract: every rule has a row that breaks it, and says why."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from fuseline.config import Task, Validate
from fuseline.data import contract
from fuseline.data.contract import SCALARS, Report, build_rules, check, describe
from fuseline.data.facts import find_facts
from fuseline.data.rewrite import complete
from fuseline.data.shards import FILES, WIDE
from fuseline.errors import DataError

LABELS = ["red", "green", "blue"]
TASK = Task(kind="classification", labels=LABELS)


def rules(**changes: Any) -> Validate:
    whole = {"max_missing": {"text": 1.0, "image": 1.0, "audio": 1.0}, "min_class_share": 0.0,
             "max_duplicates": 1.0, "max_conflicts": 1.0, "max_drift": 1.0}  # fmt: skip
    return Validate.model_validate(whole | {
        "max_text_chars": 20, "max_odd_chars": 0.1, "min_image_side": 16, "max_image_side": 64, "max_image_aspect": 3.0,
        "max_pictures": 3,
        "min_audio_seconds": 0.1, "max_audio_seconds": 1.0, "min_audio_rate": 8000, "max_quarantined": 0.05,
    } | changes)  # fmt: skip


def hold(rows: list[dict[str, Any]], task: Task = TASK, starts: Sequence[int] = (), **changes: Any) -> Report:
    table = pa.Table.from_pylist(rows, schema=WIDE)
    return check(describe(table.select(SCALARS), find_facts(table), task), task, rules(**changes), starts)


def reasons(report: Report) -> dict[int, list[str]]:
    return {row: list(why.values()) for row, why in report.reasons.items()}


def wav(seconds: float = 0.5, rate: int = 8000) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(-999, 999, int(seconds * rate)).astype(np.int16)
    soundfile.write(buffer, noise, rate, format="WAV")
    return buffer.getvalue()


@pytest.fixture
def sound(picture: Callable[..., bytes]) -> Callable[..., dict[str, Any]]:
    """Give the maker of a sound row; keywords replace columns, files are given as bytes."""

    def make(**changes: Any) -> dict[str, Any]:
        row = {"id": "a", "group": "g", "text": "a rose", "image": picture(), "audio": wav(), "target": "red",
               "meta": "{}", "source": "s"} | changes  # fmt: skip
        files = {name: {"bytes": row[name], "path": None} for name in FILES if row.get(name) is not None}
        return row | dict.fromkeys(FILES) | files

    return make


def test_a_clean_table_passes_every_rule(examples: pa.Table) -> None:
    frame = describe(complete(examples, WIDE).select(SCALARS), find_facts(examples), TASK)
    report = check(frame, TASK, rules(max_text_chars=200), starts=[32])
    assert report.reasons == {}
    assert report.broken == []
    assert len(report.expectations) == len(build_rules(rules())) + 7 == 27
    assert all(expectation.passed and expectation.failed_rows == 0 for expectation in report.expectations)


SMALL, LARGE, LONG, CUT = "small", "large", "long", "cut"
BROKEN = {
    "id_given": ({"id": None}, "id is missing"),
    "group_given": ({"group": None}, "group is missing"),
    "group_blank": ({"group": " "}, "group is blank"),
    "target_given": ({"target": None}, "target is missing"),
    "target": ({"target": "pink"}, "target 'pink' is not one of the 3 labels of params.yaml"),
    "split": ({"split": "dev"}, "split 'dev' is not one of train, val and test"),
    "modalities": ({"text": None, "image": None, "audio": None}, "neither text, image nor audio is given"),
    "text_length": ({"text": "x" * 21}, "text has 21 characters; expected 1 to 20, or null"),
    "text_odd": ({"text": "ab\ufffd\x00"}, "50% of the text's characters are control or replacement characters"),
    "image": ({"image": CUT}, "picture cannot be decoded"),
    "image_small": ({"image": SMALL}, "picture's shorter side is 15 px; at least 16 are expected"),
    "image_large": ({"image": LARGE}, "picture's longer side is 65 px; at most 64 are expected"),
    "image_aspect": ({"image": LONG}, "picture's sides differ by a factor of 4.0; at most 3 is expected"),
    "audio": ({"audio": b"RIFF no sound"}, "audio cannot be decoded"),
    "audio_length": ({"audio": wav(1.5)}, "recording lasts 1.50 s; expected 0.1 to 1"),
    "audio_rate": ({"audio": wav(rate=4000)}, "recording has 4,000 samples a second; at least 8,000 are expected"),
    "boxes": ({"boxes": "[[0, 9, 1, 1, 2, 2]]"}, "boxes, entry 1 of 1: start 0 and end 9 are no stretch of a text"),
    "meta": ({"meta": "[1]"}, "meta is not a JSON object"),
}  # fmt: skip


def test_every_rule_has_a_row_that_breaks_it() -> None:
    elsewhere = {"id_unique", "image_count"}  # the second in test_picture_lists.py
    assert BROKEN.keys() | elsewhere == {rule.key for rule in build_rules(rules())}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_row_is_refused_by_the_rule(
    rule: str, sound: Callable[..., dict[str, Any]], picture: Callable[..., bytes]
) -> None:
    changes, why = BROKEN[rule]
    pictures = {SMALL: picture(width=15), LARGE: picture(height=65), LONG: picture(width=16, height=64),
                CUT: picture()[:60]}  # fmt: skip
    report = hold([
        sound(),
        sound(**{"id": "b"} | {n: pictures.get(v, v) if isinstance(v, str) else v for n, v in changes.items()}),
    ])  # fmt: skip
    assert list(report.reasons) == [1]
    assert report.reasons[1][rule].startswith(why)
    assert len(report.reasons[1]) == 1
    assert [e.failed_rows for e in report.expectations if not e.passed] == [1]


def test_both_rows_of_a_double_id_are_refused(sound: Callable[..., dict[str, Any]]) -> None:
    report = hold([sound(), sound(id="b"), sound()])
    assert reasons(report) == {0: ["id 'a' is not unique"], 2: ["id 'a' is not unique"]}


def test_a_row_is_told_all_its_reasons(sound: Callable[..., dict[str, Any]], picture: Callable[..., bytes]) -> None:
    report = hold([sound(text="", target="pink", image=picture(width=15, height=65), meta="{")])
    found = report.reasons[0]
    assert "'pink'" in found["target"]
    assert found["text_length"] == "text has 0 characters; expected 1 to 20, or null for no text"
    assert "15 px" in found["image_small"]
    assert "65 px" in found["image_large"]
    assert found["meta"].startswith("meta is not JSON: ")


@pytest.mark.parametrize("text", ["", "   ", "\n\t"], ids=["empty", "spaces", "line and tab"])
def test_a_text_without_a_character_is_refused(text: str, sound: Callable[..., dict[str, Any]]) -> None:
    assert "text has 0 characters" in hold([sound(text=text)]).reasons[0]["text_length"]


@pytest.mark.parametrize("text", ["ΑΒΓ δέ", "日本語のテキスト", "हिन्दी", "عربى", "👩‍👩‍👧 ok", "C++ & C#!"], ids=str)
def test_no_language_counts_as_odd(text: str, sound: Callable[..., dict[str, Any]]) -> None:
    assert hold([sound(text=text)]).reasons == {}


def test_sizes_and_lengths_on_the_bound_are_accepted(
    sound: Callable[..., dict[str, Any]], picture: Callable[..., bytes]
) -> None:
    bounds = [
        sound(text="x", audio=wav(0.1)),
        sound(id="b", text="x" * 20, audio=wav(1.0)),
        sound(id="c", image=picture(width=16, height=48)),
        sound(id="d", image=picture(width=64, height=64)),
    ]
    assert hold(bounds).reasons == {}


@pytest.mark.parametrize("data", [b"", b"no picture"], ids=["no bytes", "other bytes"])
def test_what_is_no_picture_is_refused(data: bytes, sound: Callable[..., dict[str, Any]]) -> None:
    assert "picture cannot be decoded" in hold([sound(image=data)]).reasons[0]["image"]


def test_a_picture_that_is_only_a_path_is_refused(sound: Callable[..., dict[str, Any]]) -> None:
    report = hold([sound() | {"image": {"bytes": None, "path": "a.png"}}])
    assert reasons(report) == {0: ["picture bytes are missing"]}


def test_the_second_of_a_pair_is_looked_at_too(
    sound: Callable[..., dict[str, Any]], picture: Callable[..., bytes]
) -> None:
    report = hold([sound(image_pair=picture(width=15)), sound(id="b", audio_pair=b"no sound")])
    assert {row: list(why) for row, why in report.reasons.items()} == {0: ["image_small"], 1: ["audio"]}


@pytest.mark.parametrize("absent", ["text", "image", "audio", "split", "meta", "source"])
@pytest.mark.parametrize("rows", [1, 2], ids=["in some rows", "in every row"])
def test_what_may_be_missing_may_be_missing(absent: str, rows: int, sound: Callable[..., dict[str, Any]]) -> None:
    without = [sound(**{"id": str(number), absent: None}) for number in range(rows)]
    assert hold([*without, *([sound()] if rows == 1 else [])]).reasons == {}


SPANS = Task(kind="ner", labels=["PER", "LOC"], scheme="bio")
SEVERAL = Task(kind="multilabel", labels=["red", "blue"])
QA = Task(kind="qa", labels=[])
TARGETS = {
    "no JSON": (SPANS, "PER", {}, "is not a JSON list of [start, end, label]"),
    "another shape": (SPANS, "[[0, 1]]", {}, "is not a JSON list of [start, end, label]"),
    "an unknown label": (SPANS, '[[0, 1, "ORG"]]', {}, "span label 'ORG' is not one of the 2 labels"),
    "past the end": (SPANS, '[[0, 7, "PER"]]', {}, "span [0, 7] does not lie within the text's 6 characters"),
    "backwards": (SPANS, '[[2, 1, "PER"]]', {}, "span [2, 1] does not lie within"),
    "no number": (SPANS, '[[true, 1, "PER"]]', {}, "span [True, 1] does not lie within"),
    "overlapping": (SPANS, '[[2, 5, "PER"], [0, 3, "LOC"]]', {}, "two spans overlap at character 2"),
    "a label alone": (SEVERAL, "red", {}, "is not a JSON list of labels"),
    "a list of lists": (SEVERAL, '[["red"]]', {}, "is not a JSON list of labels"),
    "a list with another label": (SEVERAL, '["red", "mauve"]', {}, "label 'mauve' is not one of the 2 labels"),
    "a list with a label twice": (SEVERAL, '["red", "red"]', {}, "names a label twice"),
    "an answer elsewhere": (QA, '[[1, "rose"]]', {"text_pair": "a rose"}, "answer 'rose' does not stand at character"),
    "a blank text": (Task(kind="generation", labels=[]), " ", {}, "target is blank"),
}  # fmt: skip


@pytest.mark.parametrize("case", TARGETS)
def test_a_target_is_refused_that_is(case: str, sound: Callable[..., dict[str, Any]]) -> None:
    task, target, changes, why = TARGETS[case]
    assert why in hold([sound(target=target, **changes)], task).reasons[0]["target"]


@pytest.mark.parametrize(
    ("task", "target"),
    [(SPANS, "[]"), (SPANS, '[[0, 1, "PER"], [1, 6, "LOC"]]'), (QA, '[[2, "rose"]]'), (QA, "[]"),
     (Task(kind="generation", labels=[]), "short")],
    ids=["no span", "spans that touch", "an answer", "no answer", "a text"],
)  # fmt: skip
def test_a_sound_target_is_accepted(task: Task, target: str, sound: Callable[..., dict[str, Any]]) -> None:
    assert hold([sound(target=target, text_pair="a rose")], task).reasons == {}


def rows_of(targets: str, sound: Callable[..., dict[str, Any]], **changes: Any) -> list[dict[str, Any]]:
    names = {"r": "red", "g": "green", "b": "blue"}
    return [sound(**{"id": str(i), "text": f"text {i}", "target": names[t]} | changes) for i, t in enumerate(targets)]


LOOSER = {
    "text_length": {"max_text_chars": 21}, "text_odd": {"max_odd_chars": 0.5}, "image_small": {"min_image_side": 15},
    "image_large": {"max_image_side": 65}, "image_aspect": {"max_image_aspect": 4.0},
    "audio_length": {"max_audio_seconds": 1.5}, "audio_rate": {"min_audio_rate": 4000},
}  # fmt: skip


@pytest.mark.parametrize("rule", LOOSER)
def test_what_a_soft_rule_refuses_is_accepted_under_a_looser_bound(
    rule: str, sound: Callable[..., dict[str, Any]], picture: Callable[..., bytes]
) -> None:
    changes, _ = BROKEN[rule]
    files = {SMALL: picture(width=15), LARGE: picture(height=65), LONG: picture(width=16, height=64)}
    row = sound(**{n: files.get(v, v) if isinstance(v, str) else v for n, v in changes.items()})
    assert list(hold([row]).reasons) == [0]
    assert hold([row], **LOOSER[rule]).reasons == {}


def test_soft_are_just_the_rules_with_a_bound() -> None:
    assert LOOSER.keys() == {rule.key for rule in build_rules(rules()) if rule.soft}


def test_a_short_recording_is_accepted_under_a_looser_bound(sound: Callable[..., dict[str, Any]]) -> None:
    row = sound(audio=wav(0.05))
    assert "audio_length" in hold([row]).reasons[0]
    assert hold([row], min_audio_seconds=0.05).reasons == {}


WHOLE = {
    "missing text": ("rgb", {"text": None}, {"max_missing": {"text": 0.5, "image": 1, "audio": 1}}, [],
                     "rows without text: 100.0%, at most 50.0% allowed"),
    "missing sound": ("rgb", {"audio": None}, {"max_missing": {"text": 1, "image": 1, "audio": 0.5}}, [],
                      "rows without audio: 100.0%, at most 50.0% allowed"),
    "a missing modality": ("rgb", {"image": None}, {"max_missing": {"text": 1, "image": 0.5, "audio": 1}}, [],
                           "rows without image: 100.0%, at most 50.0% allowed"),
    "repeated rows": ("rrr", {"text": "one"}, {"max_duplicates": 0.5}, [],
                      "rows that repeat an earlier one: 66.7%, at most 50.0% allowed"),
    "two targets for one content": ("rgbr", {"text": "one"}, {"max_conflicts": 0.5}, [],
                                    "rows whose content stands under another target too: 100.0%"),
    "a class without rows": ("rgrg", {}, {"min_class_share": 0.01}, [], "the smallest class has 0.00% of the rows"),
    "other classes than before": ("r" * 20 + "g" * 20, {}, {"max_drift": 0.5}, [20],
                                  "distance of the newest shards' class shares from those before them: 100.0%"),
    "a drift that a later shard follows": ("rg" * 20 + "b" * 20 + "rg", {}, {"max_drift": 0.5}, [40, 60],
                                           "distance of the newest shards' class shares from those before them: 90.9%"),
}  # fmt: skip


@pytest.mark.parametrize("case", WHOLE)
def test_the_whole_is_refused_for(case: str, sound: Callable[..., dict[str, Any]]) -> None:
    targets, changes, bounds, starts, why = WHOLE[case]
    report = hold(rows_of(targets, sound, **changes), starts=starts, **bounds)
    assert report.reasons == {}
    assert len(report.broken) == 1
    assert report.broken[0].startswith(why)
    assert hold(rows_of(targets, sound, **changes), starts=starts).broken == []  # under a looser bound


def test_of_several_labels_each_counts_by_itself(sound: Callable[..., dict[str, Any]]) -> None:
    targets = ['["red", "blue"]'] * 30 + ["[]"] * 10 + ['["red"]', "broken"] * 30
    rows = [sound(id=str(number), target=target) for number, target in enumerate(targets)]
    assert hold(rows, SEVERAL, [40], min_class_share=0.5, max_drift=0.4).broken == [
        "the smallest class has 30.00% of the rows, at least 50.00% expected by validate.min_class_share",
        "distance of the newest shards' class shares from those before them: 50.0%, at most 40.0% allowed by "
        "validate.max_drift",
    ]


def test_chance_is_no_drift(sound: Callable[..., dict[str, Any]]) -> None:
    assert hold(rows_of("rgb" * 10 + "r", sound), starts=[30], max_drift=0.1).broken == []


def test_a_drift_that_newer_rows_outweigh_is_history(sound: Callable[..., dict[str, Any]]) -> None:
    targets = "rg" * 20 + "b" * 10 + "rg" * 20
    assert hold(rows_of(targets, sound), starts=[40], max_drift=0.5).broken == []
    assert hold(rows_of(targets[:54], sound), starts=[40, 50], max_drift=0.5).broken != []
    assert hold(rows_of(targets, sound), starts=[40, 50], max_drift=0.5).broken == []


def test_a_rule_that_cannot_be_computed_is_not_taken_for_one_that_is_met(examples: pa.Table) -> None:
    frame = contract.describe(complete(examples, WIDE).select(SCALARS), find_facts(examples), TASK).drop(
        columns="long_side"
    )
    with pytest.raises(DataError, match="could not be computed"):
        check(frame, TASK, rules())


def test_meta_is_json_of_any_depth_or_refused(sound: Callable[..., dict[str, Any]]) -> None:
    deep = "[" * 100_000
    assert "meta is not JSON" in hold([sound(meta=deep)]).reasons[0]["meta"]
    assert hold([sound(meta=json.dumps({"a": [1]}))]).reasons == {}
