"""What is found out about each row once, when it comes in: the contract and the split look at nothing else.

A row's facts depend on the row alone, so a new shard costs its own rows only. They stand beside the shard as
a Parquet file; a shard without one, made by other means, has its facts found out anew at each use.
Shape letters: N rows, S side of the thumbnail.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import multiprocessing
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import soundfile
from numpy.typing import NDArray
from PIL import Image
from rensa import RMinHash

from fuseline.data.shards import OPTIONAL, WIDE, check_file, iter_shard
from fuseline.errors import DataError
from fuseline.inputs.boxes import BOXES
from fuseline.inputs.image import MORE, decode_image
from fuseline.records import Shard

VERSION = "1"
"""Another one makes all facts be found out anew: raise it with any change of what a fact means."""

SIDE = 9
"""Pictures are compared by thumbnails of 9 x 9: 8 differences a row and column."""
PERMUTATIONS = 32
"""MinHash values per text: the standard error of a similarity of 0.9 is 0.05."""
SHINGLE = 6
"""Bytes per shingle: six Latin letters, two Chinese ones."""
MIN_SHINGLED = 40
"""Normalised bytes below which a text is compared as a whole: two short texts differ by what they share."""

_PICTURE = pa.struct([
    ("short_side", pa.int32()), ("long_side", pa.int32()), ("image_key", pa.int64()),
    ("thumbnail", pa.binary(3 * SIDE * SIDE)),
])  # fmt: skip
PICTURES = "pictures"
"""Fact of rows with several pictures: each one's own. Files of facts of which no row has several go without it."""
SCHEMA = pa.schema(
    [
        ("digest", pa.binary(16)),  # of all that the row holds
        ("text_chars", pa.int32()),  # without white space at the ends; null where there is no text
        ("text_odd", pa.float32()),  # share of control, unassigned and replacement characters
        ("text_key", pa.int64()),  # of the normalised text, pair included
        ("text_minhash", pa.binary(4 * PERMUTATIONS)),  # null for short texts
        ("image_error", pa.string()),  # null where there is no picture, "" where all are sound
        ("short_side", pa.int32()),
        ("long_side", pa.int32()),
        ("image_key", pa.int64()),  # of the decoded pixels, pair included; of several whatever their order
        ("thumbnail", pa.binary(3 * SIDE * SIDE)),  # of the first
        ("audio_error", pa.string()),
        ("audio_seconds", pa.float32()),
        ("audio_rate", pa.int32()),
        ("audio_key", pa.int64()),  # of the decoded samples, pair included
        (PICTURES, pa.list_(_PICTURE)),
    ],
    metadata={"facts": VERSION},
)
KEYS = ("text_key", "image_key", "audio_key")
"""Facts that are equal where text, picture and sound are."""
_FEW = 512
"""Rows below which starting processes costs more than it saves."""


@contextmanager
def workers(processes: int | None = None) -> Iterator[ProcessPoolExecutor | None]:
    """Give a pool that decodes pictures and sound on all cores; None on a machine with one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = processes or cores
    if count < 2:
        yield None
        return
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


def find_facts(examples: pa.Table, pool: ProcessPoolExecutor | None = None) -> pa.Table:
    """Find out the facts of a table of `shards.SCHEMA` or WIDE; bad content becomes an error, never an exception."""
    columns: dict[str, Any] = {"digest": digests(examples)}
    columns |= _text_facts(examples)
    columns |= _file_facts(examples, ("image", "image_pair"), _describe_images, pool)
    columns |= _file_facts(examples, ("audio", "audio_pair"), _describe_audios, pool)
    return pa.table([_column(columns[field.name], field.type) for field in SCHEMA], schema=SCHEMA)


def read_facts(
    folder: Path, shard: Shard, pool: ProcessPoolExecutor | None = None, columns: Collection[str] = SCHEMA.names
) -> pa.Table:
    """Return facts of a shard's rows: those that stand beside it, or found out anew.

    Raises:
        DataError: they are missing or altered.
    """
    if shard.facts is not None:
        schema = pa.schema([field for field in SCHEMA if field.name in columns])
        path = check_file(folder, shard.facts.model_copy(update={"rows": shard.rows}), ["digest"])
        file = pq.ParquetFile(path, pre_buffer=False)
        if (file.schema_arrow.metadata or {}).get(b"facts") == VERSION.encode():
            found = file.read([name for name in schema.names if name in file.schema_arrow.names])
            if PICTURES in schema.names and PICTURES not in found.column_names:
                found = found.append_column(PICTURES, pa.nulls(found.num_rows, schema.field(PICTURES).type))
            return found.select(schema.names).cast(schema)
    rows_of = iter_shard(folder, shard, WIDE.names)
    found = pa.concat_tables([find_facts(rows, pool) for rows in rows_of] or [SCHEMA.empty_table()])
    return found.select([field.name for field in SCHEMA if field.name in columns])


def _column(cells: Any, kind: pa.DataType) -> pa.Array:
    return cells.cast(kind) if isinstance(cells, pa.Array) else pa.array(cells, kind)


def digests(examples: pa.Table) -> list[bytes]:
    """Digest all that each row holds, but its id and where it came from; a group that is the id says nothing."""
    groups = pc.if_else(pc.equal(examples["group"], examples["id"]), None, examples["group"])
    examples = examples.set_column(examples.column_names.index("group"), "group", groups)
    apart = ("id", "source", *OPTIONAL)
    cells = [_measured(examples[name]) for name in examples.column_names if name not in apart]
    if not any(isinstance(cell, pa.ChunkedArray) for cell in cells):  # joined, scalars alone would be one row
        cells[0] = pa.repeat(cells[0], examples.num_rows)
    rows = pc.binary_join_element_wise(*cells, pa.scalar(b"", pa.large_binary())).to_pylist()
    for row, files in _more(examples).items():  # after all else: a row without any has the digest that it always had
        rows[row] += b"".join(b"\0" if data is None else b"%d:%b" % (len(data), data) for data in files)
    for row, boxes in _boxes(examples).items():
        rows[row] += b"boxes%d:%b" % (len(boxes), boxes)
    return [hashlib.blake2b(row, digest_size=16).digest() for row in rows]


def _more(examples: pa.Table) -> dict[int, list[bytes | None]]:
    """Return, of the rows with several pictures, those after the first."""
    if MORE not in examples.column_names or examples[MORE].null_count == examples.num_rows:
        return {}
    cells = zip(range(examples.num_rows), examples[MORE].to_pylist(), strict=True)
    return {row: [file and file["bytes"] for file in files] for row, files in cells if files}


def _boxes(examples: pa.Table) -> dict[int, bytes]:
    """Return, of the rows that say where words stand, what they say."""
    if BOXES not in examples.column_names or examples[BOXES].null_count == examples.num_rows:
        return {}
    return {row: cell.encode() for row, cell in enumerate(examples[BOXES].to_pylist()) if cell is not None}


SHOWN = ("digest", *KEYS, "image_error", "audio_error")
"""What `shown` looks at."""


def shown(facts: pa.Table) -> list[bytes | None]:
    """Digest what each row shows: its texts, pictures and sounds, whatever its id, its target or the dress they are in.

    Of a row with a broken file the digest of all that it holds; None for one that shows nothing.

    Args:
        facts: columns SHOWN.
    """
    keys = zip(*(facts[name].to_pylist() for name in KEYS), strict=True)
    errors = zip(*(facts[name].to_pylist() for name in ("image_error", "audio_error")), strict=True)
    return [
        digest if any(bad) else None if key == (None, None, None) else _digest_of(key)
        for digest, key, bad in zip(facts["digest"].to_pylist(), keys, errors, strict=True)
    ]


def _digest_of(key: tuple[int | None, ...]) -> bytes:
    return hashlib.blake2b(repr(key).encode(), digest_size=16).digest()


def _measured(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Scalar:
    """Write each cell with its length before it, so that rows which differ are not one when joined; null as a zero."""
    if column.null_count == len(column):
        return pa.scalar(b"\0", pa.large_binary())
    data = _bytes(column)
    sizes = pc.cast(pc.cast(pc.binary_length(data), pa.string()), pa.large_binary())
    colon = pa.scalar(b":", pa.large_binary())
    return pc.fill_null(pc.binary_join_element_wise(sizes, data, colon), b"\0")


def _bytes(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_struct(column.type):
        column = pa.chunked_array([chunk.field("bytes") for chunk in column.chunks], pa.binary())
    return column.cast(pa.large_binary())


def _key(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big", signed=True)


# --- text ---------------------------------------------------------------------------------------------------------


def _text_facts(examples: pa.Table) -> dict[str, Any]:
    text, pair = (examples[name].combine_chunks() for name in ("text", "text_pair"))
    normal, normal_pair = normalise(text), normalise(pair)
    joined = pc.if_else(
        pair.is_valid(), pc.binary_join_element_wise(normal, normal_pair, "\0", null_handling="replace"), normal
    )
    return {
        "text_chars": pc.utf8_length(pc.utf8_trim_whitespace(text)).cast(pa.int32()),
        "text_odd": odd_share(text),
        "text_key": [None if cell is None else _key(cell.encode()) for cell in joined.to_pylist()],
        "text_minhash": minhashes(joined),
    }


def normalise(texts: pa.Array) -> pa.Array:
    """Reduce texts to what counts when two are compared: width, case, punctuation and spacing do not."""
    plain = pc.utf8_lower(pc.utf8_normalize(texts, form="NFKC"))
    words = pc.utf8_trim_whitespace(pc.replace_substring_regex(plain, r"[^\pL\pM\pN]+", " "))
    return pc.if_else(pc.equal(pc.utf8_length(words), 0), pc.utf8_trim_whitespace(plain), words)


ODD = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x{9f}\x{fffd}-\x{ffff}\x{e000}-\x{f8ff}]"
"""Characters that no language writes with: control, private use, replacement and none at all."""


def odd_share(texts: pa.Array) -> pa.Array:
    """Return the share of ODD characters in each text."""
    chars = pc.max_element_wise(pc.utf8_length(texts), 1, skip_nulls=False)
    return pc.divide(pc.count_substring_regex(texts, ODD).cast(pa.float32()), chars.cast(pa.float32()))


def minhashes(texts: pa.Array) -> pa.Array:
    """Return MinHash signatures (Broder 1997) over shingles of SHINGLE bytes; null for short texts."""
    enough = pc.fill_null(pc.greater_equal(pc.binary_length(texts), MIN_SHINGLED), False)
    kept = pa.concat_arrays([texts.filter(enough).cast(pa.large_binary())])
    if not len(kept):
        return pa.nulls(len(texts), pa.binary(4 * PERMUTATIONS))
    offsets = np.frombuffer(kept.buffers()[1], np.int64)[kept.offset : kept.offset + len(kept) + 1]
    data = np.frombuffer(kept.buffers()[2], np.uint8)[offsets[0] : offsets[-1]].astype(np.uint64)
    windows = len(data) - SHINGLE + 1
    hashes = sum((data[i : i + windows] << np.uint64(8 * i) for i in range(SHINGLE)), np.zeros(windows, np.uint64))
    inside = np.ones(len(data), bool)  # a window must not reach into the next text
    ends = offsets[1:] - offsets[0]
    for back in range(1, SHINGLE):
        inside[ends - back] = False
    starts = np.concatenate([[0], np.cumsum(np.diff(offsets) - SHINGLE + 1)])
    mixed = _mix(hashes[inside[:windows]])
    rows = RMinHash.digest_matrix_from_flat_token_hashes(mixed, starts.astype(np.uint64), PERMUTATIONS, 1).to_rows()
    signatures = pa.array([row.tobytes() for row in np.array(rows, np.uint32)], pa.binary(4 * PERMUTATIONS))
    return pc.replace_with_mask(pa.nulls(len(texts), signatures.type), enough, signatures)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread values over 64 bits (the finaliser of SplitMix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


# --- pictures and sound -------------------------------------------------------------------------------------------


def _file_facts(
    examples: pa.Table, names: tuple[str, str], describe: Any, pool: ProcessPoolExecutor | None
) -> dict[str, list[Any]]:
    """Describe each row's files, on all cores where there are many; rows without any get nulls."""
    first, second = (_bytes(examples[name]).to_pylist() for name in names)
    held = [examples[name].is_valid().to_pylist() for name in names]
    rows = [i for i in range(examples.num_rows) if held[0][i] or held[1][i]]
    more = _more(examples) if names[0] == "image" else {}
    files = [
        (
            [cells[i] for cells, there in ((first, held[0]), (second, held[1])) if there[i]] + more.get(i, []),
            i in more,
        )
        for i in rows
    ]
    chunks = [files[start : start + 64] for start in range(0, len(files), 64)]
    found: Iterable[list[tuple[Any, ...]]] = (
        pool.map(describe, chunks) if pool is not None and len(files) >= _FEW else map(describe, chunks)
    )
    described = dict(zip(rows, itertools.chain.from_iterable(found), strict=True))
    fields = _FIELDS[names[0]]
    blank = (None,) * len(fields)
    return {name: [described.get(i, blank)[k] for i in range(examples.num_rows)] for k, name in enumerate(fields)}


_FIELDS = {
    "image": ("image_error", "short_side", "long_side", "image_key", "thumbnail", PICTURES),
    "audio": ("audio_error", "audio_seconds", "audio_rate", "audio_key"),
}


Files = tuple[Sequence[bytes | None], bool]
"""A row's files of one kind, and whether they are several of one field, not a pair."""


def _describe_images(rows: Sequence[Files]) -> list[tuple[Any, ...]]:
    return [describe_images(*row) for row in rows]


def describe_images(files: Sequence[bytes | None], several: bool = False) -> tuple[Any, ...]:
    """Return error, shortest and longest side, key of the pixels, thumbnail of the first, and each one's if several."""
    pixels, found = hashlib.blake2b(digest_size=8), []
    for number, data in enumerate(files, start=1):
        try:
            if data is None:
                raise DataError("picture bytes are missing")
            array = decode_image(data)
        except DataError as error:
            return f"picture {number} of {len(files)}: {error}" if several else str(error), *[None] * 5
        if several:  # each has its own key; a pair has one
            pixels = hashlib.blake2b(digest_size=8)
        found.append(_describe_image(array, pixels))
    short, long = min(one["short_side"] for one in found), max(one["long_side"] for one in found)
    key = found[-1]["image_key"]
    if several:
        key = _key(repr(sorted(one["image_key"] for one in found)).encode())
    return "", short, long, key, found[0]["thumbnail"], found if several else None


def _describe_image(array: NDArray[np.uint8], pixels: hashlib.blake2b) -> dict[str, Any]:
    """Return a picture's facts; its pixels are added to those that the key is of."""
    height, width = array.shape[:2]
    pixels.update(b"%d %d" % (height, width))
    pixels.update(np.ascontiguousarray(array).data)
    thumbnail = Image.fromarray(array).resize((SIDE, SIDE), Image.Resampling.BOX).tobytes()
    short, long = sorted((height, width))
    return {"short_side": short, "long_side": long, "image_key": _number_of(pixels), "thumbnail": thumbnail}


def _number_of(digest: hashlib.blake2b) -> int:
    return int.from_bytes(digest.digest(), "big", signed=True)


def _describe_audios(rows: Sequence[Files]) -> list[tuple[Any, ...]]:
    return [describe_audios(files) for files, _ in rows]


MAX_SAMPLES = 192_000 * 3600
"""Sound above this many samples, an hour at the highest rate in use, is refused before it is decoded."""


def describe_audios(files: Sequence[bytes | None]) -> tuple[Any, ...]:
    """Return error, seconds of the longest, lowest rate, and key of the samples."""
    seconds, rates = [], []
    samples = hashlib.blake2b(digest_size=8)
    for data in files:
        if data is None:
            return "audio bytes are missing", None, None, None
        try:
            with soundfile.SoundFile(io.BytesIO(data)) as sound:
                if sound.frames * sound.channels > MAX_SAMPLES:
                    raise ValueError(f"{sound.frames:,} samples exceed {MAX_SAMPLES:,}")
                read = 0
                for block in sound.blocks(blocksize=65_536, dtype="int16"):
                    read += len(block)
                    samples.update(np.ascontiguousarray(block).data)
                if read < sound.frames:
                    raise ValueError(f"{read:,} of {sound.frames:,} samples are there")
                if not read:
                    raise ValueError("it holds no samples")
                seconds.append(read / sound.samplerate)
                rates.append(sound.samplerate)
        except (soundfile.SoundFileError, ValueError, RuntimeError, TypeError) as error:
            return f"audio cannot be decoded: {error}", None, None, None
    return "", max(seconds), min(rates), _number_of(samples)


def meta_error(cell: str | None) -> str | None:
    """Say what is wrong with a row's meta; None if it is a JSON object or absent."""
    if cell is None or cell == "{}":
        return None
    try:
        return None if isinstance(json.loads(cell), dict) else "meta is not a JSON object"
    except (ValueError, RecursionError) as error:
        return f"meta is not JSON: {error}"
