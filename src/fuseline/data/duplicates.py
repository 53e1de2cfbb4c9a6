"""Find examples that repeat others: a text in other dress, a picture resized or saved again, the same sound.

What is found depends on the two rows and on those that arrived before them, never on what comes afterwards: a new
batch adds links of its own rows and takes none away. It looks at facts alone, in whole numbers, so that every
machine finds the same.
Shape letters: N rows in order of arrival, F rows compared finely, T tables, P pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fuseline.config import Duplicates
from fuseline.data.facts import PERMUTATIONS, PICTURES, SIDE

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

COLUMNS = ("text_key", "text_minhash", "image_error", "image_key", "thumbnail", "audio_error", "audio_key", PICTURES)
"""Columns of the facts that rows are compared by."""
KINDS = ("text", "image", "audio")

NEIGHBOURS = 4
"""Rows of a bucket that arrived just before, and that a row is compared with, besides the bucket's first: what bounds
the cost where thousands share a bucket."""

# Measured at image_distance 0.18 on 12,723 pictures: 5,502 photographs (grocery store), 1,600 drawings (emoji), 5,000
# synthetic scenes (easy-VQA), 621 scans (SROIE receipts). Copies found again, in that order:
#   JPEG at quality 80: 100, 100, 99.9, 100 %; at 50: 100, 99.8, 99.4, 100 %; half the size: 100, 100, 95, 100 %;
#   2 % darker or brighter: 97 to 100 %; up to 1 % cut off each side: 100, 91, 92, 58 %; up to 2 %: 96, 79, 69, 35 %;
#   up to 2 % cut off, 2 % in brightness, half the size and quality 80 at once: 97, 76, 42, 33 %.
# Pairs found that no copying made: 6 photographs (4 are one scene taken twice, 2 one design of a carton); 55 drawings
# (man and woman firefighter, clocks half an hour apart); 72 scenes (one shape, colour and place); 19 receipts (a form).
# At 0.12 these are 3, 22, 17, 2, and copies with up to 2 % cut off 65, 32, 30, 16 %. A missed copy leaks, a pair too
# many only shares a split: so rather too many. Of pairs this near, 99.98 % share a bucket or are joined by a third
# picture (101,784 pictures, 4.2 s). Differences of neighbouring cells as bits (dHash) tell no pair apart that this
# does not, and fall into few buckets where backgrounds are white.
PICTURE_TABLES, PICTURE_BITS = 16, 24
MAX_SHIFT = 16
"""Grey levels by which two pictures' mean colours may differ: what is taken out before they are compared."""
MIN_CONTRAST = 2
"""Standard deviation, in grey levels, below which a picture shows too little to be compared but by its pixels."""
_CELLS = SIDE * SIDE
_CHUNK = 1 << 16
_MANY = 1 << 24
_ODD = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Links:
    """Pairs of rows of which one repeats the other, whole or in what it holds of it."""

    later_P: Ints
    earlier_P: Ints
    """Always smaller than `later_P`."""

    @classmethod
    def join(cls, parts: Sequence[Links]) -> Links:
        """Put several together."""
        later, earlier = ([part.later_P for part in parts], [part.earlier_P for part in parts])
        return cls(np.concatenate([*later, _none()]), np.concatenate([*earlier, _none()]))

    def __len__(self) -> int:
        return len(self.later_P)


@dataclass(frozen=True)
class Content:
    """One modality of all rows, as it is compared."""

    held_N: Bools
    """Which rows have it."""
    key_N: Ints
    """Equal where it is the same."""
    fine_N: Ints
    """Row's number among those that are compared finely, -1 where the key alone counts."""
    buckets_TF: Ints
    """Two rows are compared if they fall into one bucket of some table."""
    alike: Callable[[Ints, Ints], Bools]
    """Says of pairs of fine numbers whether they are near."""

    def bucket(self, table: int, rows: Ints) -> tuple[Ints, Bools]:
        """Return the rows' buckets in a table, and which rows have one; without finer ways, the key in table 0."""
        fine, whole = self.fine_N[rows], self.key_N[rows]
        if not len(self.buckets_TF):
            return whole, np.ones(len(rows), bool)
        found = np.where(fine >= 0, self.buckets_TF[table][fine], whole)
        return found, (fine >= 0) | (table == 0)

    def matches(self, later: Ints, earlier: Ints) -> Bools:
        """Say which pairs of rows match."""
        same: Bools = self.key_N[later] == self.key_N[earlier]
        first, second = self.fine_N[later], self.fine_N[earlier]
        unsure = np.flatnonzero(~same & (first >= 0) & (second >= 0))
        for chunk in _chunks(unsure):
            same[chunk] = self.alike(first[chunk], second[chunk])
        return same

    @property
    def tables(self) -> int:
        """How many tables there are, at least one."""
        return max(len(self.buckets_TF), 1)


@dataclass(frozen=True)
class Views:
    """Rows as they are compared: one with several pictures is there once with each, all else the same.

    So it matches whatever one of its pictures would make it match.
    """

    facts: pa.Table
    """Columns COLUMNS of views, a row's own one after the other."""
    row_V: Ints

    def to_rows(self, links: Links) -> Links:
        """Turn links between views into links between rows."""
        later, earlier = self.row_V[links.later_P], self.row_V[links.earlier_P]
        return Links(later[later != earlier], earlier[later != earlier])


def spread_pictures(facts: pa.Table) -> Views:
    """Give rows with several pictures a view for each.

    Args:
        facts: columns COLUMNS of all rows in order of arrival.
    """
    lists = facts[PICTURES].combine_chunks()
    if lists.null_count == len(lists):
        return Views(facts, np.arange(len(facts)))
    counts_N = pc.fill_null(pc.list_value_length(lists), 1).to_numpy()
    row_V = np.repeat(np.arange(len(facts)), counts_N)
    views, each, own_V = (
        facts.take(pa.array(row_V)),
        lists.flatten(),
        lists.is_valid().to_numpy(zero_copy_only=False)[row_V],
    )
    for name in ("image_key", "thumbnail"):
        column = pc.replace_with_mask(views[name].combine_chunks(), pa.array(own_V), each.field(name))
        views = views.set_column(views.column_names.index(name), name, column)
    return Views(views, row_V)


def read_contents(facts: pa.Table, settings: Duplicates) -> dict[str, Content]:
    """Make rows, or views of them, comparable, modality by modality.

    Args:
        facts: columns COLUMNS of all of them in order of arrival.
    """
    return {
        "text": read_texts(facts, settings.text_similarity),
        "image": read_pictures(facts, settings.image_distance),
        "audio": read_sounds(facts),
    }


def find_links(contents: Mapping[str, Content], match: str) -> Links:
    """Find the rows that repeat another one.

    Args:
        match: "all" if rows are to match in each modality that they hold; "any" if one is enough.
    """
    held = {name: content.held_N for name, content in contents.items() if content.held_N.any()}
    if match == "any":
        return Links.join([_find(np.flatnonzero(held[name]), [contents[name]]) for name in held])
    pattern_N: Ints = np.array([(1 << bit) * rows_N for bit, rows_N in enumerate(held.values())]).sum(0)
    parts = []
    for pattern in range(1, 1 << len(held)):
        both = [contents[name] for bit, name in enumerate(held) if pattern >> bit & 1]
        parts.append(_find(np.flatnonzero(pattern_N == pattern), both))
        parts.append(_find_fuller(pattern_N, pattern, both))
    return Links.join(parts)


def _find_fuller(pattern_N: Ints, pattern: int, contents: Sequence[Content]) -> Links:
    """Link rows of a pattern of modalities to the first row that holds the same, or nearly, and more.

    Whichever came first. The first alone: where thousands of rows share a question, one that is the question and
    nothing else would join them all.
    """
    rows = np.flatnonzero(pattern_N & pattern == pattern)
    fuller = pattern_N[rows] != pattern
    part, full = rows[~fuller], rows[fuller]
    if not (len(part) and len(full)):
        return Links.join([])
    pairs = [_first_same(part, full, contents), _first_near(part, full, contents)]
    part, full = (np.concatenate(ends) for ends in zip(*pairs, strict=True))
    return Links(np.maximum(part, full), np.minimum(part, full))


def _first_same(part: Ints, full: Ints, contents: Sequence[Content]) -> tuple[Ints, Ints]:
    """Pair rows with the first fuller one that holds the same."""
    part_keys, full_keys = (mix([content.key_N[rows] for content in contents]) for rows in (part, full))
    known, first = np.unique(full_keys, return_index=True)
    at = np.searchsorted(known, part_keys).clip(max=len(known) - 1)
    there = known[at] == part_keys
    return part[there], full[first[at[there]]]


def _first_near(part: Ints, full: Ints, contents: Sequence[Content]) -> tuple[Ints, Ints]:
    """Pair rows with the first fuller one that holds nearly the same."""
    if not any(len(content.buckets_TF) for content in contents):
        return _none(), _none()
    total = int(max(part[-1], full[-1])) + 1
    codes = _distinct([_none(), *(ones * total + others for ones, others in _share_fuller(part, full, contents))])
    part, full = np.divmod(codes, total)
    for content in contents:
        matching = content.matches(part, full)
        part, full = part[matching], full[matching]
    part, first = np.unique(part, return_index=True)
    return part, full[first]


def _share_fuller(
    part: Ints, full: Ints, contents: Sequence[Content], keys: tuple[Ints, Ints] | None = None
) -> Iterator[tuple[Ints, Ints]]:
    """Yield pairs of rows and the first few fuller ones that share a bucket in each modality, for all tables.

    Args:
        keys: of the buckets that rows, and fuller ones, share in other modalities already.
    """
    content, *others = contents
    for table in range(content.tables):
        ends = []
        for rows, joint in zip((part, full), keys or (None, None), strict=True):
            buckets, there = content.bucket(table, rows)
            ends.append((rows[there], (buckets if joint is None else mix([joint, buckets]))[there]))
        (some, some_keys), (more, more_keys) = ends
        shared = _may_be_among(more_keys, some_keys)
        more, more_keys = more[shared], more_keys[shared]
        shared = _may_be_among(some_keys, more_keys)
        some, some_keys = some[shared], some_keys[shared]
        if others:
            yield from _share_fuller(some, more, others, (some_keys, more_keys))
        elif len(more):
            yield _pair_first(some, some_keys, more, more_keys)


def _pair_first(part: Ints, part_keys: Ints, full: Ints, full_keys: Ints) -> tuple[Ints, Ints]:
    """Pair each row with the first of the fuller ones that have its key, and the NEIGHBOURS after that."""
    order = np.argsort(full_keys, kind="stable")
    full, full_keys = full[order], full_keys[order]
    at = np.searchsorted(full_keys, part_keys)
    ones, others = [], []
    for ahead in range(NEIGHBOURS + 1):
        there = at + ahead < len(full)
        there[there] = full_keys[at[there] + ahead] == part_keys[there]
        ones.append(part[there])
        others.append(full[at[there] + ahead])
    return np.concatenate(ones), np.concatenate(others)


def find_near(content: Content, rows: Ints) -> Links:
    """Find, among some rows, those that match an earlier one in a modality without being the same."""
    return _find_near(rows[~_repeats(content.key_N[rows])[0]], [content])


def _find(rows: Ints, contents: Sequence[Content]) -> Links:
    """Link rows that match in all of `contents`: each to the first that is the same, and to near ones."""
    repeats, first = _repeats(mix([content.key_N[rows] for content in contents]))
    same = Links(rows[repeats], rows[first[repeats]])
    return Links.join([same, _find_near(rows[~repeats], contents)])


def _find_near(rows: Ints, contents: Sequence[Content]) -> Links:
    if not any(len(content.buckets_TF) for content in contents):
        return Links.join([])  # rows with equal keys were linked already
    total = int(rows[-1]) + 1 if len(rows) else 1
    codes = [_none()]
    for later, earlier in _share_buckets(rows, contents):
        codes.append(later * total + earlier)
        if sum(map(len, codes)) > _MANY:
            codes = [_distinct(codes)]
    later, earlier = np.divmod(_distinct(codes), total)
    for content in contents:
        matching = content.matches(later, earlier)
        later, earlier = later[matching], earlier[matching]
    return Links(later, earlier)


def _distinct(parts: Sequence[Ints]) -> Ints:
    """Return each number once, ascending; NumPy 2.4's own `unique` hashes, and takes four times as long."""
    ranked = np.sort(np.concatenate(parts))
    return ranked[np.concatenate([[True], ranked[1:] != ranked[:-1]])] if len(ranked) else ranked


def _repeats(keys: Ints) -> tuple[Bools, Ints]:
    """Return which keys stood there before, and for each where it first stood."""
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    starts = np.concatenate([[True], ranked[1:] != ranked[:-1]]) if len(keys) else np.zeros(0, bool)
    first = np.empty(len(keys), np.int64)
    first[order] = order[np.flatnonzero(starts)][np.cumsum(starts) - 1]
    return first != np.arange(len(keys)), first


def _share_buckets(rows: Ints, contents: Sequence[Content], keys: Ints | None = None) -> Iterator[tuple[Ints, Ints]]:
    """Yield pairs of rows that share a bucket in each modality, for every choice of tables.

    Args:
        keys: of the buckets that the rows share in other modalities already.
    """
    content, *others = contents
    for table in range(content.tables):
        buckets, there = content.bucket(table, rows)
        joint = buckets if keys is None else mix([keys, buckets])
        there[there] = _may_repeat(joint[there])
        if others:
            yield from _share_buckets(rows[there], others, joint[there])
        else:
            yield _share_bucket(rows[there], joint[there])


def _may_repeat(keys: Ints) -> Bools:
    """Say which keys may stand there twice: all that do, and a few more. Cheaper than to sort what is unique."""
    bits = len(keys).bit_length() + 2
    slots = _slots(keys, bits)
    return np.bincount(slots, minlength=1 << bits)[slots] > 1


def _may_be_among(keys: Ints, others: Ints) -> Bools:
    """Say which keys may be among others: all that are, and a few more."""
    bits = len(others).bit_length() + 3
    taken = np.zeros(1 << bits, bool)
    taken[_slots(others, bits)] = True
    return taken[_slots(keys, bits)]


def _slots(keys: Ints, bits: int) -> Ints:
    """Spread keys over 2 ** bits slots."""
    return (keys.view(np.uint64) * np.uint64(_ODD) >> np.uint64(64 - bits)).view(np.int64)


def _share_bucket(rows: Ints, buckets: Ints) -> tuple[Ints, Ints]:
    """Pair each row with the first of its bucket, and with the NEIGHBOURS that arrived just before it."""
    order = np.argsort(buckets, kind="stable")
    ranked, arrived = buckets[order], rows[order]
    later, earlier = [_none()], [_none()]
    for back in range(1, NEIGHBOURS + 1):
        at = np.flatnonzero(ranked[back:] == ranked[:-back])
        later.append(arrived[at + back])
        earlier.append(arrived[at])
    far = np.flatnonzero(ranked[NEIGHBOURS + 1 :] == ranked[: -NEIGHBOURS - 1]) + NEIGHBOURS + 1
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]])) if len(ranked) else _none()
    first = starts[np.searchsorted(starts, far, side="right") - 1]
    return np.concatenate([*later, arrived[far]]), np.concatenate([*earlier, arrived[first]])


def mix(keys: Sequence[Ints]) -> Ints:
    """Make one key of several that is equal where all of them are; a single one stays as it is."""
    mixed = keys[0]
    for key in keys[1:]:
        mixed = mixed * np.int64(_ODD - (1 << 64)) + (key ^ (key >> np.int64(31)))
    return mixed


def _chunks(rows: Ints) -> Iterator[Ints]:
    return (rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK))


def _none() -> Ints:
    return np.zeros(0, np.int64)


# --- text ---------------------------------------------------------------------------------------------------------


def read_texts(facts: pa.Table, similarity: float) -> Content:
    """Compare texts by their MinHash (Broder 1997): equal values estimate the shared share of all shingles.

    At 0.75, of sentences of 100 letters with a word replaced 75 % are found, with a word dropped 90 %, with a typo
    96 %; of paragraphs all. The 60 near pairs in SemEval 2010 task 8, SciTLDR and WNUT 17 are all real: a retweet, an
    abstract in two versions, other words marked in one sentence. Below MIN_SHINGLED bytes near is another thing: of
    2,256 short texts, 111 pairs were as near, and one was a copy, a tweet; the others were names of emojis (blood
    types A and B, a hand that points up or left), and with shingles of three letters questions and their negations.
    """
    held_N, key_N = _keys(facts["text_key"])
    if similarity >= 1 or facts["text_minhash"].null_count == len(key_N):
        return _whole(held_N, key_N)
    values_FP = _fixed(facts["text_minhash"], np.uint32, PERMUTATIONS)
    least = int(np.ceil(similarity * PERMUTATIONS - 1e-9))

    def alike(first: Ints, second: Ints) -> Bools:
        return (values_FP[first] == values_FP[second]).sum(1) >= least  # type: ignore[no-any-return]

    fine_N = _number(facts["text_minhash"].is_valid().to_numpy())
    return Content(held_N, key_N, fine_N, _text_buckets(values_FP, similarity), alike)


def _text_buckets(values_FP: NDArray[np.uint32], similarity: float) -> Ints:
    """Hash bands of values (Leskovec et al. 2014, chapter 3.4), as long as they may be to find 95 % of the nearest."""
    width = max(w for w in range(1, 9) if w == 1 or 1 - (1 - similarity**w) ** (PERMUTATIONS // w) >= 0.95)
    bands_FTW = values_FP[:, : PERMUTATIONS // width * width].reshape(len(values_FP), -1, width)
    odd_W = np.random.default_rng(0).integers(1 << 62, size=width) * 2 + 1
    buckets_TF = np.empty((PERMUTATIONS // width, len(values_FP)), np.int64)
    for at in _ranges(values_FP):
        buckets_TF[:, at] = (bands_FTW[at] * odd_W).sum(2).T
    return buckets_TF


# --- pictures and sound -------------------------------------------------------------------------------------------


def read_pictures(facts: pa.Table, distance: float) -> Content:
    """Compare pictures by their thumbnails, mean colour taken out, relative to their contrast.

    Buckets are sides of random planes (Charikar 2002), with coefficients ±1: no sum rounds, on any machine.
    """
    held_N, key_N = _keys(facts["image_key"])
    held_N |= facts["image_error"].is_valid().to_numpy()
    if distance <= 0 or facts["thumbnail"].null_count == len(key_N):
        return _whole(held_N, key_N)
    pixels_FK3 = _fixed(facts["thumbnail"], np.uint8, 3 * _CELLS).reshape(-1, _CELLS, 3)
    contrast_F = np.concatenate([_none(), *(_spread(pixels_FK3[at].astype(np.int32)) for at in _ranges(pixels_FK3))])
    textured_F = contrast_F >= MIN_CONTRAST**2 * 3 * _CELLS**2
    fine_N = facts["thumbnail"].is_valid().to_numpy()
    fine_N[fine_N] = textured_F
    if not textured_F.any():
        return _whole(held_N, key_N)
    pixels_FK3, contrast_F = pixels_FK3[textured_F], contrast_F[textured_F]

    def alike(first: Ints, second: Ints) -> Bools:
        change_PK3 = pixels_FK3[first].astype(np.int32) - pixels_FK3[second]
        shift_P = np.abs(change_PK3.sum(1)).max(1)
        least_P = np.minimum(contrast_F[first], contrast_F[second])
        near: Bools = (_spread(change_PK3) <= distance**2 * least_P) & (shift_P <= MAX_SHIFT * _CELLS)
        return near

    return Content(held_N, key_N, _number(fine_N), _picture_buckets(pixels_FK3), alike)


def _spread(values_FK3: NDArray[np.int32]) -> Ints:
    """Return _CELLS times the sum of squared differences from each colour's mean, a whole number."""
    squares_F = np.einsum("fkc,fkc->f", values_FK3, values_FK3).astype(np.int64)
    return _CELLS * squares_F - (values_FK3.sum(1) ** 2).sum(1)  # type: ignore[no-any-return]


def _picture_buckets(pixels_FK3: NDArray[np.uint8]) -> Ints:
    sides = np.random.default_rng(0).integers(2, size=(3 * _CELLS, PICTURE_TABLES * PICTURE_BITS))
    planes_KB = (2 * sides - 1).astype(np.float32)
    buckets_TF = np.empty((PICTURE_TABLES, len(pixels_FK3)), np.int64)
    for at in _ranges(pixels_FK3):
        pixels = pixels_FK3[at].astype(np.int32)
        centred = (_CELLS * pixels - pixels.sum(1, keepdims=True)).reshape(len(pixels), -1)
        above = centred.astype(np.float32) @ planes_KB > 0  # below 2 ** 24 all the way: exact
        bytes_FT3 = np.packbits(above.reshape(-1, PICTURE_TABLES, PICTURE_BITS), axis=2).astype(np.int64)
        buckets_TF[:, at] = (bytes_FT3 @ np.array([1 << 16, 1 << 8, 1])).T
    return buckets_TF


def read_sounds(facts: pa.Table) -> Content:
    """Compare sounds by their samples: no near ones are looked for."""
    held_N, key_N = _keys(facts["audio_key"])
    held_N |= facts["audio_error"].is_valid().to_numpy()
    return _whole(held_N, key_N)


def _whole(held_N: Bools, key_N: Ints) -> Content:
    """Compare by keys alone."""
    return Content(
        held_N, key_N, np.full(len(key_N), -1), np.zeros((0, 0), np.int64), lambda first, _: np.zeros(len(first), bool)
    )


def _keys(column: pa.ChunkedArray) -> tuple[Bools, Ints]:
    """Return which rows have a key, and the keys; one that is unknown, as of a broken picture, equals no other."""
    held_N = column.is_valid().to_numpy()
    keys_N = column.fill_null(0).to_numpy().astype(np.int64)
    keys_N[~held_N] = np.flatnonzero(~held_N)
    return held_N.copy(), keys_N


def _fixed(column: pa.ChunkedArray, kind: type[np.generic], width: int) -> NDArray[Any]:
    """Return a column of equally long byte strings as one array [F, width], nulls left out."""
    arrays = [np.zeros((0, width), kind)]
    for chunk in (chunk.drop_null() for chunk in column.chunks):
        if len(chunk):
            size = chunk.type.byte_width
            data = np.frombuffer(chunk.buffers()[1], np.uint8, len(chunk) * size, chunk.offset * size)
            arrays.append(data.view(kind).reshape(-1, width))
    return np.concatenate(arrays)


def _number(there_N: Bools) -> Ints:
    """Give the rows that are there their numbers, the others -1."""
    return np.where(there_N, np.cumsum(there_N) - 1, -1)


def _ranges(array: NDArray[Any]) -> Iterator[slice]:
    return (slice(start, start + _CHUNK // 4) for start in range(0, len(array), _CHUNK // 4))
