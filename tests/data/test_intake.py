"""Taking a batch in: nothing is lost, nothing is taken twice, and what is wrong is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fuseline.config import Task
from fuseline.data import facts, intake, shards
from fuseline.data.forgetting import forget
from fuseline.data.intake import begin, take_in
from fuseline.data.rewrite import listed_files
from fuseline.errors import DataError
from tests.data.test_contract import rules

TASK = Task(kind="classification", labels=["red", "green", "blue"])
DRAFT = pa.schema([
    *(pa.field(n, pa.binary() if n in shards.FILES else pa.string()) for n in shards.SCHEMA.names if n != "source"),
    pa.field("where", pa.string()), pa.field("problem", pa.string()),
])  # fmt: skip


def draft(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist([{"where": f"line {n}"} | row for n, row in enumerate(rows, start=1)], DRAFT)


def row(text: str, target: str | None = "red", **more: Any) -> dict[str, Any]:
    return {"text": text, "target": target} | more


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give an empty data set."""
    begin(tmp_path, "made up", TASK)
    return tmp_path


def take(folder: Path, *rows: dict[str, Any], **changes: Any) -> intake.Taken:
    return take_in(folder, [draft(*rows)], "test", TASK, rules(max_text_chars=50, **changes))


def texts(folder: Path) -> list[str]:
    return list(shards.read_examples(folder)["text"].to_pylist())


def refused(folder: Path) -> list[dict[str, Any]]:
    entry = shards.read_manifest(folder).shards[-1].quarantine
    return [] if entry is None else pq.read_table(folder / entry.file).to_pylist()


def test_a_batch_becomes_a_shard_with_facts(folder: Path, picture: Callable[..., bytes]) -> None:
    taken = take(folder, row("a"), row("b", image=picture()))
    assert (taken.read, taken.accepted, taken.quarantined) == (2, 2, 0)
    shard = shards.read_manifest(folder).shards[0]
    assert shards.read_shard(folder, shard)["image"].to_pylist()[1]["bytes"] == picture()
    assert facts.read_facts(folder, shard).equals(facts.find_facts(shards.read_shard(folder, shard)))
    assert {path.name for path in folder.iterdir()} == set(listed_files(shards.read_manifest(folder)))


def test_rows_without_an_id_get_one_that_is_made_of_their_content(folder: Path, tmp_path_factory: Any) -> None:
    take(folder, row("a"), row("b"))
    other = tmp_path_factory.mktemp("other")
    begin(other, "other", TASK)
    take(other, row("b"), row("a"))
    found, again = (shards.read_examples(place).to_pylist() for place in (folder, other))
    assert {r["text"]: r["id"] for r in found} == {r["text"]: r["id"] for r in again}
    assert all(r["group"] == r["id"] for r in found)


def test_the_same_batch_changes_nothing(folder: Path) -> None:
    take(folder, row("a"), row("b", "pink"), max_quarantined=0.5)
    before = shards.read_manifest(folder)
    taken = take(folder, row("a"), row("b", "pink"), max_quarantined=0.5)
    assert taken.known_as == before.shards[0].file
    assert not taken.changes
    assert shards.read_manifest(folder) == before


def test_known_rows_are_left_out_of_a_new_batch(folder: Path) -> None:
    take(folder, row("a"), row("b"))
    taken = take(folder, row("b"), row("c"))
    assert (taken.accepted, taken.unchanged) == (1, 1)
    assert texts(folder) == ["a", "b", "c"]


def test_what_a_batch_holds_twice_without_an_id_is_kept_twice_and_once_each_time_it_comes(folder: Path) -> None:
    assert take(folder, row("a"), row("a"), row("a", "blue")).accepted == 3
    assert texts(folder) == ["a", "a", "a"]
    taken = take(folder, row("z"), row("a", "blue"), row("a"), row("a"), row("a"))
    assert (taken.accepted, taken.unchanged, taken.superseded) == (2, 3, 0)
    ids = shards.read_examples(folder)["id"].to_pylist()
    assert len(set(ids)) == 5


def test_the_same_id_and_content_twice_is_one_example(folder: Path) -> None:
    taken = take(folder, row("a", id="1"), row("a", id="1"))
    assert (taken.accepted, taken.unchanged) == (1, 1)


def test_a_row_without_an_id_does_not_undo_a_correction(folder: Path) -> None:
    take(folder, row("a"))
    made = shards.read_examples(folder)["id"][0].as_py()
    assert take(folder, row("a", "blue", id=made)).superseded == 1
    assert take(folder, row("a"), row("b")).unchanged == 1
    assert {r["text"]: r["target"] for r in shards.read_examples(folder).to_pylist()} == {"a": "blue", "b": "red"}


def test_a_corrected_label_replaces_the_old_row_and_the_manifest_says_so(folder: Path) -> None:
    take(folder, row("a", id="1"), row("b", id="2"))
    taken = take(folder, row("a", "blue", id="1"))
    assert (taken.accepted, taken.superseded) == (1, 1)
    manifest = shards.read_manifest(folder)
    assert (manifest.rows, manifest.shards[1].supersedes) == (2, 1)
    assert {r["id"]: r["target"] for r in shards.read_examples(folder).to_pylist()} == {"1": "blue", "2": "red"}
    assert take(folder, row("a", "green", id="1")).superseded == 1
    assert {r["id"]: r["target"] for r in shards.read_examples(folder).to_pylist()} == {"1": "green", "2": "red"}


def test_what_was_corrected_may_be_corrected_back(folder: Path) -> None:
    take(folder, row("a", id="1"))
    take(folder, row("a", "blue", id="1"))
    assert take(folder, row("a", id="1"), row("z", id="9")).superseded == 1
    assert {r["id"]: r["target"] for r in shards.read_examples(folder).to_pylist()} == {"1": "red", "9": "red"}


def test_bad_rows_go_to_quarantine_each_with_its_reasons(folder: Path) -> None:
    taken = take(folder, row("a"), row("b", "pink"), row(None, None, problem="not JSON"), max_quarantined=0.7)
    assert (taken.accepted, taken.quarantined) == (1, 2)
    pink, broken = refused(folder)
    assert (pink["where"], pink["text"], pink["rules"]) == ("line 2", "b", ["target"])
    assert pink["reasons"] == ["target 'pink' is not one of the 3 labels of params.yaml"]
    assert broken["rules"][0] == "reading"
    assert broken["reasons"][0] == "not JSON"


def test_a_row_is_told_each_of_its_problems_once_and_an_encoding_keeps_its_name(folder: Path) -> None:
    broken = row("b", None, problem="target is missing"), row("c", problem="text is not UTF-8"), row("d" * 60)
    taken = take(folder, *broken, row("a"), max_quarantined=0.8)
    assert taken.examples[:2] == ["line 1: target is missing", "line 2: text is not UTF-8"]
    assert taken.reasons.keys() == {
        "reading: target is missing", "target_given: target is missing", "reading: text is not UTF-8",
        "text_length: text has … characters",
    }  # fmt: skip


def test_two_rows_of_one_id_that_differ_are_both_refused(folder: Path) -> None:
    taken = take(folder, row("a", id="1"), row("b", id="1"), row("c", id="2"), max_quarantined=0.7)
    assert (taken.accepted, taken.quarantined) == (1, 2)
    assert [r["rules"] for r in refused(folder)] == [["id_unique"], ["id_unique"]]


def test_too_many_bad_rows_leave_the_data_set_as_it_was(folder: Path) -> None:
    take(folder, row("a"))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(
        DataError, match=r"1 of 2 rows would be quarantined \(50.0%\), at most 5.0% allowed(.|\n)*line 2: target 'pink'"
    ):
        take(folder, row("b"), row("c", "pink"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_labels_may_be_added_and_none_may_go(folder: Path) -> None:
    take(folder, row("a"))
    more = Task(kind="classification", labels=["red", "green", "blue", "pink"])
    take_in(folder, [draft(row("b", "pink"))], "test", more, rules())
    assert shards.read_manifest(folder).labels == more.labels
    with pytest.raises(DataError, match="holds labels that task.labels of params.yaml lacks: pink"):
        take(folder, row("c"))


def test_another_kind_of_task_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="examples for classification, task.kind is qa"):
        take_in(folder, [draft(row("a"))], "test", Task(kind="qa", labels=[]), rules())


def test_a_batch_comes_in_tables_of_any_size(folder: Path) -> None:
    parts = [draft(row("a")), draft(row("b", "pink"), row("c"))]
    taken = take_in(folder, parts, "test", TASK, rules(max_quarantined=0.5))
    assert (taken.accepted, taken.quarantined) == (2, 1)
    assert texts(folder) == ["a", "c"]


def test_what_is_forgotten_is_in_no_file(folder: Path) -> None:
    take(folder, row("secret one", id="1"), row("b", id="2"))
    take(folder, row("secret two", id="1"), row("secret three", "pink", id="3"), row("secret one", "pink", id="4"),
         max_quarantined=0.7)  # fmt: skip
    assert forget(folder, ["1", "3"]).examples == 2
    assert texts(folder) == ["b"]
    manifest = shards.read_manifest(folder)
    assert (manifest.rows, manifest.forgotten, [s.supersedes for s in manifest.shards]) == (1, 2, [0, 0])
    assert manifest.shards[1].quarantine is None
    for path in folder.glob("*.parquet"):
        assert "secret" not in json.dumps(pq.read_table(path).to_pylist(), default=str)
    assert {path.name for path in folder.iterdir()} == set(listed_files(manifest))


def test_an_unknown_id_is_told_and_nothing_is_deleted(folder: Path) -> None:
    take(folder, row("a", id="1"))
    with pytest.raises(DataError, match="no example has the id 2"):
        forget(folder, ["1", "2"])
    assert texts(folder) == ["a"]


BACK = {
    "the same rows in another order": [row("b", id="2"), row("a", id="1")],
    "the same id": [row("another", id="1")],
    "the same content": [row("A.", "blue", id="9", meta='{"n": 1}')],
    "a row that would be refused": [row("a", "pink", id="1")],
}


@pytest.mark.parametrize("way", BACK)
def test_what_was_forgotten_does_not_come_back_unless_it_is_asked_for(folder: Path, way: str) -> None:
    take(folder, row("a", id="1"), row("b", id="2"))
    forget(folder, ["1"])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    taken = take(folder, *BACK[way])
    assert (taken.accepted, taken.forgotten, taken.quarantined, taken.changes) == (0, 1, 0, False)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    allowed = rules(max_quarantined=0.999)
    again = take_in(folder, [draft(*BACK[way], row("z"))], "test", TASK, allowed, allow_forgotten=True)
    assert (again.accepted + again.quarantined, again.forgotten) == (2, 0)
    assert {path.name for path in folder.iterdir()} == set(listed_files(shards.read_manifest(folder)))


def test_the_same_batch_undoes_no_correction_after_something_was_forgotten(folder: Path) -> None:
    batch = [row("a", id="1"), row("b", id="2")]
    take(folder, *batch)
    take(folder, row("b", "blue", id="2"))
    forget(folder, ["1"])
    assert take(folder, *batch).known_as == shards.read_manifest(folder).shards[0].file
    assert shards.read_examples(folder)["target"].to_pylist() == ["blue"]


def test_the_same_batch_brings_back_on_request_what_was_forgotten(folder: Path) -> None:
    batch = [row("a", id="1"), row("b", id="2")]
    take(folder, *batch)
    forget(folder, ["1"])
    assert take_in(folder, [draft(*batch)], "test", TASK, rules(), allow_forgotten=True).accepted == 1
    assert texts(folder) == ["b", "a"]


def test_on_request_the_same_batch_brings_back_nothing_but_what_was_forgotten(folder: Path) -> None:
    batch = [row("a", id="1"), row("b", id="2"), row("c", "pink", id="3"), row("d")]
    take(folder, *batch, max_quarantined=0.5)
    made = shards.read_examples(folder)["id"][2].as_py()
    take(folder, row("b", "blue", id="2"), row("d", "green", id=made))
    forget(folder, ["1"])
    taken = take_in(folder, [draft(*batch)], "test", TASK, rules(max_quarantined=0.0), allow_forgotten=True)
    assert (taken.accepted, taken.unchanged, taken.superseded, taken.quarantined) == (1, 3, 0, 0)
    found = {r["text"]: r["target"] for r in shards.read_examples(folder).to_pylist()}
    assert found == {"a": "red", "b": "blue", "d": "green"}
    again = take_in(folder, [draft(*batch)], "test", TASK, rules(), allow_forgotten=True)
    assert (again.known_as, again.changes) == (shards.read_manifest(folder).shards[0].file, False)


def test_of_a_batch_that_is_known_what_became_of_its_rows_since_is_told(folder: Path) -> None:
    take(folder, row("before", id="3"))
    batch = [row("a", id="1"), row("b", id="2"), row("c", "pink", id="3"), row("d", id="4"), row("e", id="5")]
    take(folder, *batch, max_quarantined=0.5)
    known = take(folder, *batch)
    assert (known.unchanged, known.corrected, known.forgotten) == (5, 0, 0)
    take(folder, row("b", "blue", id="2"), row("d", "green", id="4"))
    take(folder, row("d", id="4"))  # as it was at first
    forget(folder, ["1"])
    known = take(folder, *batch)
    assert (known.known_as is not None, known.corrected, known.forgotten) == (True, 1, 1)


def test_a_batch_without_rows_is_an_error(folder: Path) -> None:
    for nothing in ([], [draft()]):
        with pytest.raises(DataError, match="the batch holds no rows, nothing was taken in"):
            take_in(folder, nothing, "test", TASK, rules())
    assert shards.read_manifest(folder).shards == []


@pytest.mark.parametrize(("allowed", "bad", "rows"), [(0.29, 29, 100), (0.3, 3, 10), (0.07, 7, 100), (0.57, 57, 100)])
def test_exactly_the_share_that_is_allowed_is_taken_and_one_more_refused(
    folder: Path, allowed: float, bad: int, rows: int
) -> None:
    def batch(bad: int) -> list[dict[str, Any]]:
        return [row(f"thing {n}", "pink" if n < bad else "red") for n in range(rows)]

    with pytest.raises(DataError, match="at most"):
        take(folder, *batch(bad + 1), max_quarantined=allowed)
    assert take(folder, *batch(bad), max_quarantined=allowed).quarantined == bad


def test_what_came_back_on_request_is_like_any_other_row(folder: Path) -> None:
    take(folder, row("a", id="1"))
    forget(folder, ["1"])
    take_in(folder, [draft(row("a", id="1"))], "test", TASK, rules(), allow_forgotten=True)
    assert shards.read_manifest(folder).forgotten_digests is None
    assert take(folder, row("a", "blue", id="1")).superseded == 1


def test_examples_that_show_the_same_as_a_forgotten_one_are_named_and_stay(folder: Path) -> None:
    take(folder, row("a", id="1"), row("A!", id="2"), row("b", id="3"))
    assert forget(folder, ["1"]).copies == ["2"]
    taken = take(folder, row("a", "blue", id="2"), row("a", id="4"))
    assert (taken.superseded, taken.forgotten) == (1, 1)


def test_to_forget_a_row_that_shows_nothing_keeps_no_other_out(folder: Path) -> None:
    take(folder, row("a", id="1"), row(None, None, id="2", problem="not JSON"), max_quarantined=0.5)
    forget(folder, ["2"])
    taken = take(folder, row("b", id="3"), row(None, None, id="4", problem="not JSON"), max_quarantined=0.5)
    assert (taken.accepted, taken.forgotten, taken.quarantined) == (1, 0, 1)


def test_labels_that_params_lack_are_listed_where_they_are_too_many(folder: Path) -> None:
    with pytest.raises(DataError, match="params.yaml lacks, the commonest first: 'pink', 'mauve'$"):
        take(folder, row("a"), row("b", "pink"), row("c", "mauve"), row("d", "pink"), max_quarantined=0.1)


def test_spans_are_counted_by_label_and_another_problem_s_targets_are_asked_about(folder: Path) -> None:
    task = Task(kind="ner", labels=["LOC", "PER"], scheme="bio")
    begin(folder, "made up", task)
    good = [row("ab cd", '[[0, 2, "PER"], [3, 5, "LOC"]]'), row("ef", '[[0, 2, "PER"]]'), row("gh", "[]")]
    assert take_in(folder, [draft(*good)], "test", task, rules()).targets == {"PER": 2, "LOC": 1}
    with pytest.raises(DataError, match=r"task.kind of params.yaml is ner: is that the problem"):
        take_in(folder, [draft(row("ij", "pink"))], "test", task, rules())


def test_labels_are_counted_one_by_one_where_a_row_may_have_several(folder: Path) -> None:
    task = Task(kind="multilabel", labels=["red", "blue"])
    begin(folder, "made up", task)
    good = [row("ab", '["red", "blue"]'), row("cd", '["red"]'), row("ef", "[]")]
    assert take_in(folder, [draft(*good)], "test", task, rules()).targets == {"red": 2, "blue": 1}


BESIDE: dict[str, tuple[str, dict[str, Any]]] = {
    "facts of another shard": ("facts", {"from": ("1", "facts")}),
    "facts that are a shard": ("facts", {"from": ("0", None)}),
    "a quarantine that is facts": ("quarantine", {"from": ("0", "facts")}),
    "a quarantine of another number of rows": ("quarantine", {"rows": 7}),
}


@pytest.mark.parametrize("case", BESIDE)
def test_a_file_that_the_manifest_takes_for_another_is_named(folder: Path, case: str) -> None:
    take(folder, row("a", id="1"), row("b", id="2"), row("c", "pink", id="3"), max_quarantined=0.5)
    take(folder, row("d", id="4"))
    document = json.loads((folder / "manifest.json").read_text())
    key, change = BESIDE[case]
    if "from" in change:
        number, name = change["from"]
        found = document["shards"][int(number)]
        document["shards"][0][key] = {k: (found[name] if name else found)[k] for k in ("file", "sha256", "rows")}
    else:
        document["shards"][0][key] |= change
    (folder / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"\.parquet: .* manifest\.json takes it for another file"):
        forget(folder, ["1"])


@pytest.mark.parametrize("name", ["../params.yaml", "/etc/passwd", "", "a/b.parquet", ".hidden"])
def test_a_manifest_names_files_of_its_own_folder_only(folder: Path, name: str) -> None:
    take(folder, row("a", id="1"))
    document = json.loads((folder / "manifest.json").read_text())
    document["shards"][0]["file"] = name
    (folder / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"record at shards\.0\.file: .*; bring back what data\.dvc names"):
        shards.read_manifest(folder)
