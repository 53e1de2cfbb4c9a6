"""Rows with several pictures: each passes by itself, all are looked at, and rows with one are what they always were."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Features, Image, List

from fuseline.config import Duplicates, Prepare, Validate
from fuseline.data import adapters, facts, intake, quarantine, shards
from fuseline.data.adapters import parquet
from fuseline.data.arrivals import read_rows
from fuseline.data.dealing import deal_rows
from fuseline.data.duplicates import find_links, read_contents, spread_pictures
from fuseline.data.forgetting import forget
from fuseline.errors import DataError
from fuseline.inputs.image import MORE, pictures_of
from fuseline.survey.show import PICTURES, show
from tests.conftest import paint
from tests.data.test_contract import rules
from tests.data.test_duplicates import scene, shown
from tests.data.test_intake import TASK

RED, GREEN, BLUE = paint((200, 10, 10)), paint((10, 200, 10), 30), paint((10, 10, 200), 24, 24)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give an empty data set."""
    (tmp_path / "data").mkdir()
    intake.begin(tmp_path / "data", "made up", TASK)
    return tmp_path / "data"


@pytest.fixture
def batch(tmp_path: Path) -> Callable[..., Path]:
    """Give the writer of a batch of JSON Lines beside three pictures and something else."""

    def write(*rows: dict[str, Any]) -> Path:
        for name, data in {"red.png": RED, "green.png": GREEN, "blue.png": BLUE, "broken.png": b"none"}.items():
            (tmp_path / name).write_bytes(data)
        lines = [json.dumps({"label": "red"} | row) for row in rows]
        (tmp_path / "rows.jsonl").write_text("\n".join(lines))
        return tmp_path / "rows.jsonl"

    return write


def lenient(**bounds: Any) -> Validate:
    """Return the contract with other bounds, under which all rows of a batch may be bad."""
    return rules(**bounds).model_copy(update={"max_quarantined": 1.0})


def take(folder: Path, batch: Path, contract: Validate | None = None) -> intake.Taken:
    return intake.take_in(folder, adapters.read(batch), "test", TASK, contract or lenient())


def held(folder: Path) -> dict[str, list[bytes] | None]:
    return {row["id"]: pictures_of(row) for row in shards.read_examples(folder, shards.WIDE.names).to_pylist()}


def refused(folder: Path) -> dict[str, str]:
    rows = [row for batch in quarantine.read_refused(folder) for row in batch.rows.to_pylist()]
    return {row["id"]: "; ".join(row["reasons"]) for row in rows}


def test_a_row_takes_none_one_or_many_pictures(folder: Path, batch: Callable[..., Path]) -> None:
    lists = {
        "none": [],
        "null": None,
        "one": ["red.png"],
        "plain": "red.png",
        "three": ["red.png", "blue.png", "green.png"],
    }
    taken = take(folder, batch(*({"id": name, "text": name, "image": given} for name, given in lists.items())))
    assert (taken.accepted, taken.quarantined) == (5, 0)
    assert held(folder) == {
        "none": None, "null": None, "one": [RED], "plain": [RED], "three": [RED, BLUE, GREEN],
    }  # fmt: skip


def test_parquet_has_lists_of_bytes_of_structs_and_of_paths(folder: Path, batch: Callable[..., Path]) -> None:
    root = batch().parent
    structs = Features({"image": List(Image())}).arrow_schema.field("image").type
    given = {
        "bytes": pa.array([[RED, BLUE]]),
        "structs": pa.array([[{"bytes": RED, "path": None}, {"bytes": None, "path": "blue.png"}]], structs),
        "paths": pa.array([["red.png", "blue.png"]]),
    }
    for name, column in given.items():
        pq.write_table(pa.table({"id": [name], "image": column, "label": ["red"]}), root / f"{name}.parquet")
        take(folder, root / f"{name}.parquet")
    assert held(folder) == {name: [RED, BLUE] for name in given}


def test_a_shard_that_is_sent_as_a_batch_keeps_its_pictures(
    folder: Path, batch: Callable[..., Path], tmp_path: Path
) -> None:
    take(folder, batch({"id": "a", "image": ["red.png", "blue.png"]}))
    other = tmp_path / "other"
    other.mkdir()
    intake.begin(other, "made up", TASK)
    take(other, next(folder.glob("shard-*.parquet")))
    assert held(other) == held(folder) == {"a": [RED, BLUE]}


@pytest.mark.parametrize(("given", "why"), [
    (["red.png", "broken.png"], "picture 2 of 2: picture cannot be decoded"),
    (["red.png", "away.png", "blue.png"], "image, picture 2 of 3, 'away.png' is not found in the batch"),
    (["red.png", None], "image, picture 2 of 2, is missing"),
    (["red.png", 7], "image, picture 2 of 2, is a number; expected a path"),
    (["red.png"] * 4, "row has 4 pictures; at most 3 are expected (validate.max_pictures)"),
])  # fmt: skip
def test_a_list_is_refused_that_has(folder: Path, batch: Callable[..., Path], given: list[Any], why: str) -> None:
    take(folder, batch({"id": "bad", "image": given}, {"id": "good", "image": ["red.png", "blue.png"]}))
    assert list(held(folder)) == ["good"]
    assert why in refused(folder)["bad"]


@pytest.mark.parametrize(("bounds", "why"), [
    ({"min_image_side": 26}, "picture 3 of 3: picture's shorter side is 24 px"),
    ({"max_image_side": 36}, "picture 1 of 3: picture's longer side is 40 px"),
    ({"max_image_aspect": 1.15}, "picture 2 of 3: picture's sides differ by a factor of 1.2"),
])  # fmt: skip
def test_each_picture_is_held_against_the_contract(
    folder: Path, batch: Callable[..., Path], bounds: dict[str, Any], why: str
) -> None:
    contract = lenient(**bounds)
    take(folder, batch({"id": "bad", "image": ["red.png", "green.png", "blue.png"]}), contract)
    assert refused(folder)["bad"].startswith(why)


def test_a_row_with_a_pair_has_one_picture(folder: Path, batch: Callable[..., Path]) -> None:
    take(folder, batch({"id": "bad", "image": ["red.png", "blue.png"], "image_pair": "green.png"}))
    assert "image has several pictures; beside image_pair, it has one" in refused(folder)["bad"]


def test_rows_with_one_picture_are_written_as_they_always_were(
    folder: Path, batch: Callable[..., Path], tmp_path: Path
) -> None:
    take(folder, batch({"id": "a", "text": "a", "image": "red.png"}, {"id": "b", "text": "b", "image": ["green.png"]}))
    shard = shards.read_manifest(folder).shards[0]
    assert pq.read_schema(folder / shard.file).equals(shards.SCHEMA, check_metadata=True)
    assert shards.write_shard(tmp_path / "plain", shards.read_examples(folder), 0).sha256 == shard.sha256
    assert shard.facts is not None
    assert pq.read_schema(folder / shard.facts.file).names == [n for n in facts.SCHEMA.names if n != facts.PICTURES]


def test_digests_of_rows_are_those_that_data_sets_know() -> None:
    rows = [
        {
            "id": "a",
            "group": "a",
            "text": "a rose",
            "image": {"bytes": b"x", "path": None},
            "target": "red",
            "meta": "{}",
        },
        {"id": "b", "group": "g", "audio": {"bytes": b"yy", "path": None}, "target": "red"},
    ]
    for schema in (shards.SCHEMA, shards.WIDE):
        found = facts.digests(pa.Table.from_pylist(rows, schema))
        assert [digest.hex()[:16] for digest in found] == ["5246a94ed35c07bc", "05d06f7e99f61243"]


def test_a_row_beside_one_with_several_has_the_digest_that_it_has_alone(
    folder: Path, batch: Callable[..., Path]
) -> None:
    rows = [{"id": "a", "image": "red.png"}, {"id": "b", "image": ["red.png", "blue.png"]}]
    digests = []
    for given in (rows[:1], rows, rows[1:]):
        (draft,) = adapters.read(batch(*given))
        digests.append(facts.find_facts(intake._to_examples(draft, "test"))["digest"].to_pylist())
    assert digests[0] + digests[2] == digests[1]
    assert digests[0] != digests[2]


def test_what_a_row_shows_does_not_depend_on_the_order_of_its_pictures(batch: Callable[..., Path]) -> None:
    lists = (["red.png", "blue.png"], ["blue.png", "red.png"], ["red.png", "green.png"], ["red.png"], "red.png")
    (draft,) = adapters.read(batch(*({"image": given} for given in lists)))
    found = facts.find_facts(intake._to_examples(draft, "test"))
    one, same, other, alone, plain = facts.shown(found)
    assert one == same
    assert alone == plain
    assert len({one, other, alone}) == 3
    assert len(set(found["digest"].to_pylist())) == 4


SETTINGS = Duplicates(match="all", text_similarity=0.75, image_distance=0.18)


def several(*images: Any, **more: Any) -> dict[str, Any]:
    first, *rest = [shown(image)["image"] for image in images]
    return {"id": "x", "group": "x", "target": "t", "image": first, MORE: rest or None} | more


def links_of(*rows: dict[str, Any], match: str = "all") -> set[tuple[int, int]]:
    table = pa.Table.from_pylist(rows, schema=shards.WIDE)
    views = spread_pictures(facts.find_facts(table))
    links = views.to_rows(find_links(read_contents(views.facts, SETTINGS), match))
    return set(zip(links.later_P.tolist(), links.earlier_P.tolist(), strict=True))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_rows_that_share_any_picture_are_linked(place: int) -> None:
    shared = scene(0)
    pictures = [scene(1), scene(2)]
    pictures.insert(place, shared.resize((60, 60)))
    rows = [several(scene(7)), several(shared), several(*pictures), several(scene(8), scene(9)), several(scene(8))]
    assert links_of(*rows) == {(2, 1), (4, 3)}


def test_rows_that_share_a_picture_and_hold_another_text_are_two() -> None:
    rows = [several(scene(0), scene(1), text="one"), several(scene(1), scene(2), text="two")]
    assert links_of(*rows) == set()
    assert links_of(*rows, match="any") == {(1, 0)}


def test_a_row_is_no_duplicate_of_itself() -> None:
    assert links_of(several(scene(0), scene(0), scene(1))) == set()


def test_rows_that_share_a_picture_stay_in_one_split(folder: Path, tmp_path: Path) -> None:
    rows = []
    for number in range(40):
        own = several(scene(100 + number), scene(number // 2)) if number % 2 else several(scene(number // 2))
        rows.append(own | {"id": f"e{number}", "group": f"g{number}", "target": "red"})
    shards.write_data_set(folder, "made up", "classification", TASK.labels, [pa.Table.from_pylist(rows, shards.WIDE)])
    settings = Prepare(salt="a", val=0.3, test=0.3, freeze_test=None, val_from_train=False, duplicates=SETTINGS)
    read = read_rows(folder, shards.read_manifest(folder), settings, False, None)
    prepared = deal_rows(read, settings, np.zeros(0, np.int64))
    assert (prepared.splits_N[::2] == prepared.splits_N[1::2]).all()
    assert len(set(prepared.splits_N.tolist())) == 3
    assert prepared.leakage.duplicates == 20
    assert all(across.rows == 0 for across in prepared.leakage.across.values())
    apart = settings.model_copy(
        update={"duplicates": SETTINGS.model_copy(update={"match": "all", "image_distance": 0.0})}
    )
    texts = pa.Table.from_pylist([row | {"text": row["id"]} for row in rows], shards.WIDE)
    shards.write_data_set(folder, "made up", "classification", TASK.labels, [texts])
    read = read_rows(folder, shards.read_manifest(folder), apart, False, None)
    leaks = deal_rows(read, apart, np.zeros(0, np.int64)).leakage.across["same picture"]
    assert leaks.rows > 0
    assert {abs(int(one.id[1:]) - int(one.other[1:])) for one in leaks.examples} == {1}


def test_rows_are_forgotten_released_and_known_again(folder: Path, batch: Callable[..., Path]) -> None:
    rows = [{"id": "a", "image": ["red.png", "blue.png"]}, {"id": "b", "image": ["red.png", "green.png", "blue.png"]},
            {"id": "c", "image": "green.png"}]  # fmt: skip
    strict = lenient(max_pictures=2)
    taken = take(folder, batch(*rows), strict)
    assert (taken.accepted, taken.quarantined) == (2, 1)
    shutil.copytree(folder, folder / "thrown away")
    with pytest.raises(DataError, match="still break the contract"):
        quarantine.release(folder / "thrown away", TASK, strict, ["b"])
    shutil.rmtree(folder / "thrown away")
    assert quarantine.release(folder, TASK, rules(max_pictures=3), ["b"]).accepted == 1
    assert held(folder) == {"a": [RED, BLUE], "c": [GREEN], "b": [RED, GREEN, BLUE]}
    forget(folder, ["a"])
    assert held(folder) == {"c": [GREEN], "b": [RED, GREEN, BLUE]}
    first, second = shards.read_manifest(folder).shards
    assert pq.read_schema(folder / first.file).names == shards.SCHEMA.names
    assert pq.read_schema(folder / second.file).names == [*shards.SCHEMA.names, MORE]
    again = take(folder, batch({"id": "z", "image": ["blue.png", "red.png"]}, {"id": "y", "image": "red.png"}))
    assert (again.accepted, again.forgotten) == (1, 1)


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.binary()), pa.large_list(pa.binary()), pa.list_(pa.binary(), 10)], ids=str
)
def test_the_same_value_many_times_in_a_list_does_not_fill_memory(
    kind: pa.DataType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alike = pa.types.is_fixed_size_list(kind)
    lists = pa.array([[b"x" * 100_000] * (10 if alike else 50 if row == 70 else 2) for row in range(100)], kind)
    pq.write_table(pa.table({"image": lists, "label": ["x"] * 100}), tmp_path / "rows.parquet", compression="zstd")
    monkeypatch.setattr(parquet, "TABLE_BYTES", 1_000_000)
    tables = list(parquet.read(parquet.Batch(tmp_path), "rows.parquet"))
    assert max(table.num_rows for table in tables) <= 5
    assert sum(table.num_rows for table in tables) == 100
    monkeypatch.setattr(parquet, "BOMB_BYTES", 1_000_000)
    monkeypatch.setattr(parquet, "MAX_RATIO", 1)
    with pytest.raises(DataError, match="decompression bomb"):
        list(parquet.read(parquet.Batch(tmp_path), "rows.parquet"))


def test_the_report_shows_the_first_pictures_of_a_row(folder: Path) -> None:
    row = several(*map(scene, range(PICTURES + 2)))
    shards.write_data_set(folder, "made up", "classification", TASK.labels, [pa.Table.from_pylist([row], shards.WIDE)])
    example = show(folder, shards.read_manifest(folder), [0], np.zeros(1, np.int8))[0]
    assert len(example.pictures) == PICTURES
    assert example.notes == [f"{PICTURES} of {PICTURES + 2} pictures are shown"]
