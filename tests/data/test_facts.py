"""Facts: what two rows have in common, and what is wrong with one."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from fuseline.data import facts
from fuseline.data.facts import find_facts, minhashes, normalise, odd_share
from fuseline.data.shards import FILES, SCHEMA, Shard, write_shard
from fuseline.errors import DataError


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(
        [{"id": str(n), "group": str(n), "target": "red"} | {
            key: {"bytes": value, "path": None} if key in FILES else value for key, value in row.items()
        } for n, row in enumerate(rows)],
        SCHEMA,
    )  # fmt: skip


def similarity(first: str, second: str) -> float:
    one, two = (np.frombuffer(cell, np.uint32) for cell in minhashes(normalise(pa.array([first, second]))).to_pylist())
    return float((one == two).mean())


def test_a_digest_is_of_the_content_alone() -> None:
    rows = table(
        {"text": "a"}, {"text": "a", "id": "x", "group": "x", "source": "elsewhere"}, {"text": "a", "target": "blue"}
    )
    first, same, other = find_facts(rows)["digest"].to_pylist()
    assert first == same != other


def test_a_cell_may_not_pass_for_its_neighbour() -> None:
    first, second = find_facts(table({"text": "ab", "text_pair": None}, {"text": "a", "text_pair": "b"}))[
        "digest"
    ].to_pylist()
    assert first != second


@pytest.mark.parametrize(
    ("first", "second"),
    [("A  rose.", "a rose"), ("ＡＢＣ", "abc"), ("caf\u00e9", "cafe\u0301"), ("!?", "!?")],
    ids=["case, space and marks", "width", "composition", "marks alone"],
)
def test_texts_are_the_same_whatever_their(first: str, second: str) -> None:
    one, two = normalise(pa.array([first, second])).to_pylist()
    assert one == two


def test_scripts_are_kept_whole() -> None:
    assert normalise(pa.array(["हिन्दी", "日本語、です"])).to_pylist() == ["हिन्दी", "日本語 です"]


def test_near_texts_agree_and_others_do_not() -> None:
    text = "The quick brown fox jumps over the lazy dog while nobody is looking at the sheep on the hill."
    assert similarity(text, text.replace("quick", "very quick")) > 0.7
    assert (
        similarity(text, "An entirely different sentence, of about the same length, that speaks of the weather today.")
        < 0.1
    )


def test_short_texts_are_compared_as_a_whole() -> None:
    assert minhashes(pa.array(["short", None, "x" * 40])).is_valid().to_pylist() == [False, False, True]


def test_a_text_says_the_same_alone_and_among_others() -> None:
    texts = normalise(
        pa.array([f"sentence number {n} with enough characters to be cut into shingles" for n in range(9)])
    )
    alone = [minhashes(texts[n : n + 1])[0].as_py() for n in range(9)]
    assert minhashes(texts).to_pylist() == alone


def test_characters_that_no_language_uses_are_counted() -> None:
    found = odd_share(pa.array(["ok", "a\x00b\ufffd", "", None, "tab\tand\nline"])).to_pylist()
    assert found == [0.0, 0.5, 0.0, None, 0.0]


def test_a_picture_is_known_by_its_pixels_not_its_file(picture: Callable[..., bytes]) -> None:
    png, bmp, other = (
        picture(form=form, color=c) for form, c in (("PNG", (1, 2, 3)), ("BMP", (1, 2, 3)), ("PNG", (9, 9, 9)))
    )
    keys = find_facts(table({"image": png}, {"image": bmp}, {"image": other}))["image_key"].to_pylist()
    assert keys[0] == keys[1] != keys[2]


def test_a_pair_is_another_picture_than_its_first(picture: Callable[..., bytes]) -> None:
    found = find_facts(table({"image": picture()}, {"image": picture(), "image_pair": picture()}))
    assert len(set(found["image_key"].to_pylist())) == 2


def test_a_bad_file_is_an_error_in_words(picture: Callable[..., bytes]) -> None:
    found = find_facts(table({"image": picture()[:50]}, {"audio": b"RIFF"}, {"image": b""}, {}))
    assert found["image_error"][0].as_py().startswith("picture cannot be decoded")
    assert found["audio_error"][1].as_py().startswith("audio cannot be decoded")
    assert found["image_error"].to_pylist()[3] is None


def test_a_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    buffer = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(buffer, "PNG")
    assert "exceeds" in find_facts(table({"image": buffer.getvalue()}))["image_error"][0].as_py()


def test_processes_find_the_same_as_one(picture: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "_FEW", 1)
    rows = table(*({"image": picture(color=(n, 0, 0))} for n in range(70)))
    with facts.workers(2) as pool:
        assert find_facts(rows, pool).equals(find_facts(rows))


def test_facts_of_another_version_are_found_anew(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = write_shard(tmp_path, table({"text": "a"}), 0)
    assert facts.read_facts(tmp_path, shard)["text_chars"].to_pylist() == [1]


def test_facts_that_were_altered_are_refused(tmp_path: Any) -> None:
    shard = write_shard(tmp_path, table({"text": "a"}), 0)
    (tmp_path / "facts.parquet").write_bytes(b"x")
    beside = {"file": "facts.parquet", "sha256": "0" * 64, "rows": 1}
    with pytest.raises(DataError, match="missing or altered"):
        facts.read_facts(tmp_path, Shard.model_validate(shard.model_dump() | {"facts": beside}))
