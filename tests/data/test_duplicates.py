"""Duplicates: what is the same in other dress is found, what is different is not, and no later row changes that."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fuseline.config import Duplicates
from fuseline.data.duplicates import (
    COLUMNS,
    NEIGHBOURS,
    Content,
    Links,
    find_links,
    find_near,
    read_contents,
    read_pictures,
    read_texts,
)
from fuseline.data.facts import PERMUTATIONS, SIDE, find_facts
from fuseline.data.shards import SCHEMA

DEFAULT = Duplicates(match="all", text_similarity=0.75, image_distance=0.18)
SENTENCE = "The quick brown fox jumps over the lazy dog while the old farmer looks at it from his window"


def compare(*rows: dict[str, Any], **changes: Any) -> set[tuple[int, int]]:
    """Return the pairs (later, earlier) that are found among rows."""
    chosen = DEFAULT.model_copy(update=changes)
    table = pa.Table.from_pylist([{"id": "x", "group": "x", "target": "t"} | row for row in rows], schema=SCHEMA)
    return pairs(find_links(read_contents(find_facts(table).select(COLUMNS), chosen), chosen.match))


def pairs(links: Links) -> set[tuple[int, int]]:
    return set(zip(links.later_P.tolist(), links.earlier_P.tolist(), strict=True))


def text(words: str | None, **more: Any) -> dict[str, Any]:
    return {"text": words, **more}


def scene(seed: int, side: int = 120) -> Image.Image:
    """Paint a picture of its own: smooth spots of colour."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    return small.resize((side, side), Image.Resampling.BICUBIC)


def shown(image: Image.Image, form: str = "PNG", **options: Any) -> dict[str, Any]:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return {"image": {"bytes": buffer.getvalue(), "path": None}}


def sound(seed: int) -> dict[str, Any]:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.random.default_rng(seed).uniform(-0.5, 0.5, 800), 8000, format="WAV")
    return {"audio": {"bytes": buffer.getvalue(), "path": None}}


@pytest.mark.parametrize("other", ["THE ROSE!", " the  rose", "ｔｈｅ rose", "the-rose"])
def test_the_same_text_in_other_dress_is_found(other: str) -> None:
    assert compare(text("the rose"), text(other)) == {(1, 0)}


@pytest.mark.parametrize(
    "other",
    [SENTENCE.replace("lazy", "lazzy"), SENTENCE + " RT", SENTENCE.replace("old ", "")],
    ids=["a typo", "a word added", "a word dropped"],
)
def test_a_nearly_equal_text_is_found(other: str) -> None:
    assert compare(text(SENTENCE), text(other)) == {(1, 0)}
    assert compare(text(SENTENCE), text(other), text_similarity=1.0) == set()


@pytest.mark.parametrize("other", ["the nose", SENTENCE, SENTENCE[:45]], ids=["a short one", "a long one", "a half"])
def test_another_text_is_not_taken_for_it(other: str) -> None:
    assert compare(text("the rose"), text(SENTENCE[::-1]), text(SENTENCE + SENTENCE[::-1]), text(other)) == set()


CHANGES: dict[str, Callable[[Image.Image], dict[str, Any]]] = {
    "half the size": lambda image: shown(image.resize((60, 60))),
    "saved as JPEG": lambda image: shown(image, "JPEG", quality=60),
    "darker by 2 %": lambda image: shown(image.point(lambda level: level * 0.98)),
    "cut by 1 % on each side": lambda image: shown(image.crop((1, 1, 119, 119))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_of_a_picture_is_found(change: str) -> None:
    images = [scene(seed) for seed in range(20)]
    rows = [shown(image) for image in images] + [CHANGES[change](image) for image in images]
    assert compare(*rows) == {(number + 20, number) for number in range(20)}
    assert compare(*rows, image_distance=0.0) == set()


def test_a_picture_saved_losslessly_is_the_same() -> None:
    assert compare(shown(scene(1)), shown(scene(1), "BMP"), image_distance=0.0) == {(1, 0)}


def test_pictures_of_one_colour_are_compared_by_their_pixels(picture: Callable[..., bytes]) -> None:
    colors = [(200, 30, 40), (201, 30, 40), (200, 30, 40), (255, 255, 255)]
    assert compare(*({"image": {"bytes": picture(color), "path": None}} for color in colors)) == {(2, 0)}


def test_a_shape_on_another_background_colour_is_another_picture() -> None:
    image = scene(3).point(lambda level: level // 4 + 20)
    assert compare(shown(image), shown(image.point(lambda level: level + 40))) == set()
    assert compare(shown(image), shown(image.point(lambda level: level + 8))) == {(1, 0)}


def test_a_broken_picture_is_like_no_other() -> None:
    broken = {"image": {"bytes": b"no picture", "path": None}}
    assert compare(broken, broken) == set()
    assert compare(text("the rose", **broken), text("the rose", **broken)) == set()
    assert compare(text("the rose", **broken), text("the rose", **broken), match="any") == {(1, 0)}


def test_the_same_sound_is_found_and_another_is_not() -> None:
    assert compare(sound(1), sound(2), sound(1)) == {(2, 0)}


def test_with_all_every_modality_has_to_match_and_with_any_one_is_enough() -> None:
    rows = [text("a rose", **shown(scene(1))), text("a rose", **shown(scene(2))), text("b", **shown(scene(1)))]
    again = text("A Rose", **shown(scene(1).resize((60, 60))))
    assert compare(*rows, again) == {(3, 0)}
    assert compare(*rows, again, match="any") >= {(1, 0), (2, 0), (3, 0)}


def test_a_row_that_lacks_a_modality_goes_with_the_first_fuller_one_that_it_repeats() -> None:
    rose, lily = shown(scene(1)), shown(scene(2))
    first, second = text("a rose", **rose), text("a rose", **lily)
    assert compare(first, second, text("A Rose")) == {(2, 0)}
    assert compare(text("a rose"), first, second) == {(1, 0)}
    assert compare(text("a rose"), first, text("a rose"), second) == {(1, 0), (2, 0), (2, 1)}
    assert compare(first, lily, rose, text(None, **sound(1))) == {(2, 0)}
    assert compare(text("b"), first, second) == set()


def test_a_fuller_row_still_fuller_is_gone_with_too() -> None:
    both = text("a rose", **shown(scene(1)))
    assert compare(both | sound(1), both, sound(1), text("a rose")) == {(1, 0), (2, 0), (3, 0)}


def test_a_nearly_equal_row_that_lacks_a_modality_goes_with_the_first_fuller_one() -> None:
    photo, smaller = scene(1), scene(1).resize((60, 60))
    captioned, bare = text("a rose", **shown(photo)), shown(smaller, "JPEG", quality=80)
    assert compare(captioned, text("a lily", **shown(photo)), bare) == {(2, 0)}
    assert compare(bare, captioned) == {(1, 0)}
    assert compare(captioned, shown(scene(2))) == set()
    assert compare(text(SENTENCE, **shown(scene(2))), text(SENTENCE.replace("lazy", "lazzy"))) == {(1, 0)}
    whole = text(SENTENCE, **shown(photo)) | sound(1)
    assert compare(whole, text(SENTENCE.replace("lazy", "lazzy"), **bare)) == {(1, 0)}
    assert compare(whole, text(SENTENCE.replace("lazy", "lazzy"), **shown(scene(2)))) == set()


def test_with_any_one_modality_in_common_is_enough() -> None:
    rows = [text("a rose"), text("a rose", **shown(scene(1))), shown(scene(1)), text(None, **sound(1))]
    assert compare(*rows, match="any") == {(1, 0), (2, 1)}


def test_rows_that_hold_nothing_are_not_alike() -> None:
    assert compare(text(None), text(None)) == set()
    assert compare() == set()


def test_near_rows_are_told_from_the_same() -> None:
    table = pa.Table.from_pylist(
        [{"id": "x", "group": "x", "target": "t", "text": t} for t in (SENTENCE, SENTENCE + " RT", SENTENCE)],
        schema=SCHEMA,
    )
    texts = read_texts(find_facts(table), 0.75)
    assert pairs(find_near(texts, np.arange(3))) == {(1, 0)}
    assert pairs(find_near(texts, np.array([0, 2]))) == set()


# --- at scale -----------------------------------------------------------------------------------------------------


def signatures(values: np.ndarray) -> Content:
    """Make texts of MinHash values [N, PERMUTATIONS], no two of them equal."""
    hashes = pa.array([row.astype(np.uint32).tobytes() for row in values], pa.binary(4 * PERMUTATIONS))
    keys = pa.array(range(1, len(values) + 1), pa.int64())
    return read_texts(pa.table({"text_key": keys, "text_minhash": hashes}), 0.75)


def thumbnails(pixels: np.ndarray) -> Content:
    """Make pictures of thumbnails, no two of them equal."""
    cells = pa.array([row.astype(np.uint8).tobytes() for row in pixels], pa.binary(3 * SIDE * SIDE))
    keys, errors = pa.array(range(1, len(pixels) + 1), pa.int64()), pa.array([""] * len(pixels))
    return read_pictures(pa.table({"image_key": keys, "image_error": errors, "thumbnail": cells}), 0.18)


def test_thousands_in_one_bucket_are_compared_with_a_few_each_and_still_joined() -> None:
    values = np.random.default_rng(0).integers(1 << 30, size=PERMUTATIONS)
    many = np.tile(values, (3000, 1))
    many[np.arange(3000), np.arange(3000) % PERMUTATIONS] += np.arange(3000)
    found = pairs(find_links({"text": signatures(many)}, "all"))
    assert len({later for later, _ in found}) == 2999
    assert len(found) <= 3000 * 3 * (NEIGHBOURS + 1)


def test_nearly_all_near_pictures_are_found_among_many() -> None:
    random = np.random.default_rng(0)
    first = random.integers(0, 256, (2000, 3 * SIDE * SIDE))
    again = np.clip(first + random.normal(0, 8, first.shape), 0, 255)
    found = pairs(find_links({"image": thumbnails(np.concatenate([first, again]))}, "all"))
    assert {later - earlier for later, earlier in found} == {2000}
    assert len(found) > 0.99 * 2000


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.booleans()), min_size=2, max_size=40), st.data())
@settings(max_examples=60)
def test_later_rows_neither_add_nor_remove_a_pair_of_earlier_ones(rows: list[Any], data: st.DataObject) -> None:
    random = np.random.default_rng(1)
    values, pixels = random.integers(1 << 30, size=(4, PERMUTATIONS)), random.integers(0, 256, (4, 3 * SIDE * SIDE))
    texts, pictures = values[[kind for kind, _, _ in rows]], pixels[[kind for kind, _, _ in rows]]
    for number, (_, change, _) in enumerate(rows):
        texts[number, :change] += 1 + number % 3
        pictures[number, : 6 * change] = 255 - pictures[number, : 6 * change]
    held = np.array([both for _, _, both in rows])

    def find(count: int) -> set[tuple[int, int]]:
        text, image = signatures(texts[:count]), thumbnails(pictures[:count])
        image = Content(held[:count], image.key_N, image.fine_N, image.buckets_TF, image.alike)
        return pairs(find_links({"text": text, "image": image}, "all"))

    whole, count = find(len(rows)), data.draw(st.integers(1, len(rows)))
    assert find(count) == {(later, earlier) for later, earlier in whole if later < count}
    assert all(earlier < later for later, earlier in whole)
