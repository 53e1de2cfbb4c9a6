"""The splits on disk: who is in which, what a new shard changes, what is left out and why."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from fuseline.config import Params
from fuseline.data.shards import SCHEMA, read_manifest, write_data_set, write_table
from fuseline.errors import DISK_FULL, DataError
from fuseline.records import Expectation, Leakage, Preparation, Validation, files_of, sha256_of
from fuseline.stages import prepare as stage
from fuseline.stages.prepare import check_modalities, main
from fuseline.stages.validate import QUARANTINE

ROOT = Path(__file__).parents[2]
LABELS = ["red", "green"]
SPLITS = ("train", "val", "test")
NEAR = {"match": "all", "text_similarity": 0.75, "image_distance": 0.18}
Rows = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Work in a folder of one's own, without starting processes for a handful of pictures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fuseline.stages.prepare.workers", nullcontext)


def rows(count: int, start: int = 0, **changes: Any) -> Rows:
    """Make examples in groups of their own, each with a text and a picture of its own."""
    made = []
    for number in range(start, start + count):
        random = np.random.default_rng(number)
        made.append({
            "id": f"e{number}", "group": f"e{number}", "text": f"text {number} {random.bytes(9).hex()}",
            "image": picture(number), "target": LABELS[number % 2],
        } | changes)  # fmt: skip
    return made


def picture(seed: int, side: int = 32) -> dict[str, Any]:
    spots = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(spots).resize((side, side)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def prepare(
    *shards: Rows, bad: list[int] | None = None, supersedes: list[int] | None = None, kind: str = "classification",
    **changes: Any,
) -> dict[str, pa.Table]:  # fmt: skip
    """Write shards, run the stage, and return the splits.

    Args:
        bad: numbers of rows in quarantine, among those that stand.
        supersedes: how many older rows each shard replaces.
        changes: of params.yaml's prepare section.
    """
    labels = LABELS if kind == "classification" else []
    tables = [pa.Table.from_pylist(shard, schema=SCHEMA) for shard in shards]
    write_data_set(Path("data"), "made up", kind, labels, tables)
    if supersedes:
        manifest = read_manifest(Path("data"))
        entries = [s.model_copy(update={"supersedes": n}) for s, n in zip(manifest.shards, supersedes, strict=True)]
        manifest.model_copy(update={"shards": entries}).write(Path("data/manifest.json"))
    folder = Path("build/validate")
    quarantined = [{"id": "x", "row": number, "reasons": "bad"} for number in bad or []]
    write_table(pa.Table.from_pylist(quarantined, schema=QUARANTINE), folder / "quarantine.parquet")
    Validation(
        passed=True, why="", rows=0, quarantined=0, expectations=[Expectation(rule="r", passed=True, failed_rows=0)]
    ).write(folder / "validation.json")
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    document["task"] = {"kind": kind, "labels": labels}
    document["prepare"] |= {"val": 0.3, "test": 0.3} | changes
    main(Params.model_validate(document))
    return {split: pa.concat_tables(map(pq.read_table, files_of(Path("build/prepare") / split))) for split in SPLITS}


def placed(splits: dict[str, pa.Table]) -> dict[str, str]:
    """Return the split of each id."""
    return {name: split for split, table in splits.items() for name in table["id"].to_pylist()}


def leakage() -> Leakage:
    return Leakage.read(Path("build/prepare/leakage.json"))


def preparation() -> Preparation:
    return Preparation.read(Path("build/prepare/preparation.json"))


def written() -> Iterator[tuple[str, str]]:
    for path in sorted(Path("build/prepare").rglob("*.parquet")):
        yield str(path), sha256_of(path)


def find(splits: dict[str, str], split: str) -> str:
    return next(name for name, found in splits.items() if found == split)


def number_of(name: str) -> int:
    return int(name[1:])


# --- files --------------------------------------------------------------------------------------------------------


def test_every_row_is_in_one_split_in_the_file_of_its_shard_and_in_order() -> None:
    splits = prepare(rows(30), rows(25, 30))
    assert sorted(placed(splits), key=number_of) == [f"e{number}" for number in range(55)]
    for split in SPLITS:
        files = files_of(Path("build/prepare") / split)
        assert [file.name for file in files] == [shard.file for shard in read_manifest(Path("data")).shards]
        ids = [number_of(name) for file in files for name in pq.read_table(file)["id"].to_pylist()]
        assert ids == sorted(ids)
    assert sum(table.num_rows for table in splits.values()) == 55


def test_rows_come_as_they_were_with_their_labels_number() -> None:
    made = rows(40)
    splits = prepare(made)
    for table in splits.values():
        expected = [made[number_of(name)] for name in table["id"].to_pylist()]
        assert table.drop_columns(["label"]).equals(pa.Table.from_pylist(expected, schema=SCHEMA))
        assert table["label"].to_pylist() == [LABELS.index(row["target"]) for row in expected]


def test_what_was_written_before_is_linked_and_costs_its_new_rows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSELINE_CACHE", "cache")
    made, divided = rows(40), list[str]()
    real = stage._divide
    monkeypatch.setattr(stage, "_divide", lambda shard, *rest: (divided.append(shard.file), real(shard, *rest)))
    prepare(made)
    first, inodes = dict(written()), {path: Path(path).stat().st_ino for path, _ in written()}
    prepare(made, rows(10, 40))
    assert [name[:11] for name in divided] == ["shard-00000", "shard-00001"]
    assert first.items() <= dict(written()).items()
    assert all(Path(path).stat().st_ino == inode for path, inode in inodes.items())
    path = Path(next(iter(first)))
    assert path.stat().st_mode & 0o222 == 0
    path.chmod(0o644)
    path.write_bytes(b"damaged in place")
    prepare(made, rows(10, 40))
    assert first.items() <= dict(written()).items()


def test_a_task_without_labels_has_no_label_column() -> None:
    splits = prepare(rows(40, target="a text"), kind="generation")
    assert all(table.schema.equals(SCHEMA) for table in splits.values())
    assert preparation().labels == {}
    assert sum(preparation().rows.values()) == 40


def test_a_shard_without_rows_of_a_split_leaves_no_file_there() -> None:
    splits = placed(prepare(rows(40)))
    alone = rows(1, 100, group=find(splits, "val"))
    prepare(rows(40), alone)
    names = {split: [file.name[:11] for file in files_of(Path("build/prepare") / split)] for split in SPLITS}
    assert names == {"train": ["shard-00000"], "val": ["shard-00000", "shard-00001"], "test": ["shard-00000"]}


def test_a_new_shard_leaves_the_files_of_the_others_as_they_are() -> None:
    prepare(rows(40))
    before = dict(written())
    again = [row | {"id": f"again {row['id']}", "group": f"new {row['id']}"} for row in rows(40)]
    prepare(rows(40), rows(30, 40) + again)
    after = dict(written())
    assert len(before) == 3
    assert {path: after[path] for path in before} == before


def test_a_correction_stays_in_its_split_and_changes_the_file_of_the_old_row_alone() -> None:
    first, second = rows(40), rows(40, 40)
    splits = placed(prepare(first, second))
    before = dict(written())
    name = find(splits, "test")
    corrected = first[number_of(name)] | {"group": "another", "text": "corrected", "target": "red"}
    after = prepare(first, second, [corrected], supersedes=[0, 0, 1])
    assert placed(after) == splits
    row = next(row for row in after["test"].to_pylist() if row["id"] == name)
    assert (row["text"], row["label"]) == ("corrected", 0)
    unchanged = {path for path, digest in before.items() if dict(written())[path] == digest}
    assert len(before) - len(unchanged) == 1


def test_rows_in_quarantine_are_left_out_and_move_no_other() -> None:
    made = rows(40)
    made[7] |= {"text": made[3]["text"], "image": made[3]["image"]}
    splits = placed(prepare(made, supersedes=[0]))
    corrected = made[0] | {"text": "corrected"}
    after = placed(prepare(made, [corrected], supersedes=[0, 1], bad=[2]))  # row 0 no longer stands: 2 is e3
    assert set(splits) - set(after) == {"e3"}
    assert after.items() <= splits.items()


# --- duplicates ---------------------------------------------------------------------------------------------------


def test_duplicates_share_a_split_and_are_counted() -> None:
    made = rows(40)
    again = [row | {"id": f"again {row['id']}", "group": f"new {row['id']}"} for row in made]
    splits = placed(prepare(made, again))
    assert all(splits[f"again e{number}"] == splits[f"e{number}"] for number in range(40))
    assert preparation().duplicates == leakage().duplicates == 40
    assert (leakage().joined, leakage().largest_family) == (80, 2)
    assert all(found.rows == 0 for found in leakage().across.values())


@pytest.mark.parametrize("lacks", ["text", "image"])
def test_a_copy_that_lacks_a_modality_goes_where_the_fuller_example_is(lacks: str) -> None:
    made = rows(30)
    part = [row | {"id": f"c{row['id']}", "group": f"c{row['id']}", lacks: None} for row in made]
    for order in ([made, part], [part, made], [made + part]):
        splits = placed(prepare(*order))
        assert {name: splits[f"c{name}"] for name in (row["id"] for row in made)}.items() <= splits.items()


def test_a_row_between_two_splits_is_held_out_and_named() -> None:
    made = rows(40)
    splits = placed(prepare(made))
    train, test = find(splits, "train"), find(splits, "test")
    between = [made[number_of(name)] | {"id": f"like {name}", "group": "between"} for name in (train, test)]
    after = prepare(made, between)
    assert placed(after) == splits
    assert preparation().held_out == 2
    found = leakage().held_out["between"]
    assert found.rows == 2
    assert [one.id for one in found.examples] == [f"like {train}", f"like {test}"]
    assert found.examples[0].why == (
        f"its family ties rows together that are in different splits: '{train}' in train and '{test}' in test"
    )


def test_copies_of_test_rows_that_name_train_are_held_out() -> None:
    made = rows(40)
    given = [
        made[0] | {"id": "a", "group": "a", "split": "train"},
        made[0] | {"id": "b", "group": "b", "split": "test"},
    ]
    splits = placed(prepare(given + made[1:]))
    assert "a" not in splits
    assert splits["b"] == "test"
    assert [one.why for one in leakage().held_out["declared"].examples] == [
        "it names a split that its family is not in: 'b' in test"
    ]


def test_train_gives_val_its_share_where_nothing_else_does() -> None:
    made = rows(60, split="train") + rows(20, 60, split="test")
    made[1] |= {"text": made[0]["text"], "image": made[0]["image"]}  # a family, whatever split it comes to
    made[2] |= {"text": made[60]["text"], "image": made[60]["image"]}  # of a row in test
    with pytest.raises(DataError, match="split val has no rows"):
        prepare(made)
    splits = placed(prepare(made, val_from_train=True))
    counts = Counter(splits.values())
    assert counts["test"] == 20
    assert counts["val"] + counts["train"] == 59
    assert counts["val"] / 59 == pytest.approx(0.3, abs=0.15)
    assert splits["e0"] == splits["e1"]
    assert "e2" not in splits
    later = placed(prepare(made, rows(20, 80, split="train"), val_from_train=True))
    assert later.items() >= splits.items()


def test_a_row_that_names_val_is_tied_to_train_by_no_share() -> None:
    made = rows(30, split="train") + rows(10, 30, split="val") + rows(10, 40, split="test")
    splits = placed(prepare(made, val_from_train=True))
    assert {splits[f"e{number}"] for number in range(30, 40)} == {"val"}


def test_data_that_no_member_is_trained_on_needs_no_modality_of_theirs() -> None:
    made = rows(40, image=None)
    with pytest.raises(DataError, match="no row with image in train"):
        prepare(made)
    assert len(placed(prepare(made, kind="generation"))) == 40


def test_a_frozen_test_split_stays_the_same_to_the_byte() -> None:
    prepare(rows(40))
    before = {path: digest for path, digest in written() if "/test/" in path}
    prepare(rows(40), rows(60, 40), freeze_test=1)
    assert {path: digest for path, digest in written() if "/test/" in path} == before
    assert preparation().rows["train"] + preparation().rows["val"] + preparation().rows["test"] == 100


def test_what_is_alike_in_one_modality_alone_is_told_apart_by_kind() -> None:
    made = rows(40)
    splits = placed(prepare(made))
    train, test = find(splits, "train"), find(splits, "test")
    made[number_of(test)]["text"] = made[number_of(train)]["text"].upper()
    val = find(splits, "val")
    made[number_of(val)]["image"] = made[number_of(train)]["image"]
    assert placed(prepare(made)) == splits
    across = leakage().across
    assert {kind: found.rows for kind, found in across.items() if found.rows} == {"same text": 1, "same picture": 1}
    named = across["same text"].examples[0]
    assert (named.id, named.split, named.other, named.other_split) == (test, "test", train, "train")
    assert across["same picture"].examples[0].id == val


def test_with_any_what_is_alike_in_one_modality_shares_a_split() -> None:
    made = rows(40)
    splits = placed(prepare(made))
    train, test = sorted([find(splits, "train"), find(splits, "test")], key=number_of)
    made[number_of(test)]["text"] = made[number_of(train)]["text"]
    after = placed(prepare(made, duplicates={**NEAR, "match": "any"}))
    assert after[test] == after[train] == splits[train]


def test_how_near_a_text_may_be_is_the_config_s() -> None:
    made = [row | {"image": None, "text": f"{row['text']} the same in all, and so long that one word is little"}
            for row in rows(40)]  # fmt: skip
    copies = [row | {"id": f"c{row['id']}", "group": f"c{row['id']}", "text": f"{row['text']} more"} for row in made]
    counts = []
    for least in (1.0, 0.9, 0.1):
        prepare(made + copies + rows(20, 100), duplicates={**NEAR, "text_similarity": least})
        counts.append(preparation().duplicates)
    assert counts[0] == 0 < counts[1] < counts[2]


def test_how_near_a_picture_may_be_is_the_config_s() -> None:
    made = [row | {"text": None} for row in rows(40)]
    copies = [row | {"id": f"c{row['id']}", "group": f"c{row['id']}", "image": picture(n, side=48)}
              for n, row in enumerate(made)]  # fmt: skip
    for most, found in ((0.0, 0), (0.18, 40)):
        prepare(made + copies + rows(20, 100), duplicates={**NEAR, "image_distance": most})
        assert preparation().duplicates == found


def test_pairs_of_pictures_are_alike_only_if_both_are() -> None:
    made = rows(40)
    copies = [row | {"id": f"c{row['id']}", "group": f"c{row['id']}", "image_pair": picture(500 + n)}
              for n, row in enumerate(made)]  # fmt: skip
    others = [row | {"id": f"o{row['id']}", "group": f"o{row['id']}", "image_pair": picture(900 + n)}
              for n, row in enumerate(made)]  # fmt: skip
    prepare(copies + others)
    assert preparation().duplicates == 0
    prepare(copies + [row | {"id": f"x{row['id']}"} for row in copies])
    assert preparation().duplicates == 40


# --- refusals -----------------------------------------------------------------------------------------------------


def test_too_few_rows_for_every_split_are_refused() -> None:
    with pytest.raises(DataError, match=r"split (train|val|test|and| )+ has no rows: 2 accepted rows are too few"):
        prepare(rows(2))


def test_rows_that_duplicates_tie_to_one_family_are_refused() -> None:
    with pytest.raises(DataError, match="duplicates tie nearly all rows to one family"):
        prepare(rows(1) + [rows(1)[0] | {"id": f"c{n}", "group": f"c{n}"} for n in range(30)])


def test_a_label_without_a_training_example_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"no training example for green; add some or take the label out of task\.labels"
    ):
        prepare(rows(40, target="red"))


def test_a_data_set_that_broke_its_contract_is_refused(tmp_path: Path) -> None:
    prepare(rows(40))
    broken = Validation.read(Path("build/validate/validation.json")).model_copy(update={"passed": False, "why": "bad"})
    broken.write(Path("build/validate/validation.json"))
    with pytest.raises(DataError, match="the data contract refused this data set: bad"):
        main(Params.model_validate(yaml.safe_load((ROOT / "params.yaml").read_text())))


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("modality", ["text", "image"])
def test_a_split_without_a_modality_that_members_use_is_refused(split: str, modality: str) -> None:
    counts = {name: {"text": 1, "image": 1} for name in SPLITS}
    counts[split][modality] = 0
    with pytest.raises(DataError, match=rf"no row with {modality} in {split}; expected some in each split"):
        check_modalities(counts, ["text", "image"])


def test_every_modality_that_is_lacking_is_named_at_once() -> None:
    counts = {"val": {"text": 1, "image": 0}, "test": {"text": 0, "image": 0}}
    with pytest.raises(DataError, match="image in val, none with text in test, none with image in test"):
        check_modalities(counts, ["text", "image"])


def test_a_modality_that_no_member_uses_is_not_missed() -> None:
    check_modalities({"test": {"text": 1, "image": 0}}, ["text"])


def test_data_without_pictures_is_refused_while_a_member_needs_them() -> None:
    with pytest.raises(DataError, match="no row with image in train, none with image in val"):
        prepare(rows(40, image=None))


# --- the embedded set ---------------------------------------------------------------------------------------------


def test_the_embedded_set_is_dealt_as_it_has_always_been(tmp_path: Path) -> None:
    shard = next(path for path in (ROOT / "embedded/remote").rglob("*") if path.is_file() and _is_parquet(path))
    params = Params.model_validate(yaml.safe_load((ROOT / "params.yaml").read_text()))
    write_data_set(Path("data"), "emoji", "classification", params.task.labels, [pq.read_table(shard)])
    write_table(pa.Table.from_pylist([], schema=QUARANTINE), Path("build/validate/quarantine.parquet"))
    Validation(passed=True, why="", rows=0, quarantined=0, expectations=[]).write(
        Path("build/validate/validation.json")
    )
    main(params)
    assert preparation().rows == {"train": 1059, "val": 248, "test": 294}
    ids = "\n".join(pq.read_table(files_of(Path("build/prepare/test"))[0])["id"].to_pylist())
    assert hashlib.sha256(ids.encode()).hexdigest()[:16] == "15cf6f15ce161ce1"
    assert preparation().held_out == 0


def _is_parquet(path: Path) -> bool:
    return path.read_bytes()[:4] == b"PAR1"


@pytest.mark.parametrize("name", ["validate", "prepare"])
def test_a_full_disk_is_told_and_the_next_run_goes_on(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSELINE_CACHE", "cache")
    prepare(rows(40))
    before = dict(written())
    shutil.rmtree("cache")
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    document["task"]["labels"], document["prepare"] = LABELS, document["prepare"] | {"val": 0.3, "test": 0.3}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document))
    command = [sys.executable, "-m", f"fuseline.stages.{name}"]
    full = subprocess.run(["bash", "-c", 'ulimit -f 1; exec "$@"', "-", *command], capture_output=True, text=True)
    assert (full.returncode, full.stderr.splitlines()[-1]) == (1, f"error: {DISK_FULL}")
    assert "Traceback" not in full.stderr
    subprocess.run(command, check=True)
    assert dict(written()) == before
