"""The rows that are shown fit on a page, are marked where the target is a place, and say what cannot be shown."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from fuseline.report.dataset import Piece
from fuseline.survey import show
from fuseline.survey.rows import Held
from fuseline.survey.show import CHARS, SIDE, cut, make_picture, make_sound, mark

Hold = Callable[..., Held]


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def test_spans_are_marked() -> None:
    assert cut("Ada went to Rome.", [(12, 16, "loc"), (0, 3, "per")]) == [
        Piece("Ada", "per"), Piece(" went to "), Piece("Rome", "loc"), Piece("."),
    ]  # fmt: skip


def test_a_long_text_is_cut_around_its_first_span() -> None:
    text = "x" * 1000 + "Rome" + "y" * 1000
    pieces = cut(text, [(1000, 1004, "loc")])
    assert Piece("Rome", "loc") in pieces
    assert text_of(pieces).startswith("…x")
    assert text_of(pieces).endswith("y…")
    assert len(text_of(pieces)) <= CHARS + 2


@pytest.mark.parametrize("spans", [[(5, 99, "x")], [(0, 4, "x"), (2, 6, "y")]], ids=["outside", "overlap"])
def test_spans_that_do_not_fit_lose_no_text(spans: list[tuple[int, int, str]]) -> None:
    assert text_of(cut("some text", spans)) == "some text"


@pytest.mark.parametrize(("task", "target", "marked", "beside"), [
    ("classification", "red", [], "red"),
    ("ner", '[[0, 3, "per"]]', [("Ada", "per")], None),
    ("ner", "{broken", [], None),
    ("ner", '[["a", 3, "per"]]', [], None),
    ("qa", '[[4, "town"], [0, "old"]]', [("town", "answer")], None),
    ("qa", '[["x", 7]]', [], None),
    ("generation", "a" * 500, [], "a" * (CHARS - 1) + "…"),
])  # fmt: skip
def test_targets_are_marked_in_the_text_or_stand_beside_it(
    task: str, target: str, marked: list[tuple[str, str]], beside: str | None
) -> None:
    texts, shown = mark(task, target, "Ada was here", "old town hall")
    assert [text_of(text) for text in texts] == ["Ada was here", "old town hall"]
    assert [(one.text, one.label) for text in texts for one in text if one.label] == marked
    assert shown == beside


def test_a_row_without_text_shows_none() -> None:
    assert mark("classification", "red", None, None) == ([], "red")
    assert mark("ner", "[]", None, None) == ([], None)
    assert mark("qa", "[]", None, None) == ([], None)


def test_a_large_picture_becomes_a_thumbnail_and_a_tiny_one_keeps_its_pixels() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    tiny = decode(make_picture(encode(Image.fromarray(noise))).uri)
    assert np.array_equal(np.asarray(tiny.convert("RGB")), noise)
    large = make_picture(encode(Image.new("RGB", (1200, 600), "red")))
    assert (large.width, large.height) == (1200, 600)
    assert decode(large.uri).size == (SIDE, SIDE // 2)


def encode(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def decode(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_a_recording_is_drawn_and_played_where_it_may(tone: bytes) -> None:
    sound = make_sound(tone, playable=True)
    assert sound.seconds == 0.5
    assert sound.peaks[-1] == pytest.approx(1, abs=0.05)
    assert sound.peaks[0] < 0.1
    assert sound.uri == "data:audio/wav;base64," + base64.b64encode(tone).decode()
    assert make_sound(tone, playable=False).uri is None


def test_rows_are_read_by_number_across_shards_and_say_what_is_broken(
    hold: Hold, picture: Callable[..., bytes], tone: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = {"bytes": tone, "path": None}
    held = hold([{"id": f"a{n}", "text": f"a{n}"} for n in range(5)],
                [{"id": "bad", "image": {"bytes": b"no picture", "path": None}, "audio": {"bytes": b"x", "path": None}},
                 {"id": "good", "image": {"bytes": picture(), "path": None}, "audio": audio},
                 {"id": "later", "audio": audio}])  # fmt: skip
    monkeypatch.setattr(show, "ALL_SOUNDS", len(tone) + 10)
    found = show.show(held.folder, held.manifest, [7, 5, 6, 2, 2], np.array([0, 0, 2, 0, 0, -1, 1, 0], np.int8))
    assert [(row, one.id, one.split) for row, one in found.items()] == [
        (2, "a2", "test"), (5, "bad", None), (6, "good", "val"), (7, "later", "train"),
    ]  # fmt: skip
    assert [len(one.notes) for one in found.values()] == [0, 2, 0, 0]
    assert "cannot be decoded" in json.dumps(found[5].notes)
    assert found[6].sounds[0].uri is not None
    assert found[7].sounds[0].uri is None  # all recordings together have a limit
