"""Read the few rows that are shown, and make them fit on a page: texts cut, pictures small, sound as a curve."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile
from numpy.typing import NDArray
from PIL import Image

from fuseline.data.shards import WIDE, take_rows
from fuseline.data.split import ABSENT, SPLITS
from fuseline.errors import DataError
from fuseline.inputs.image import MORE, decode_image
from fuseline.records import DataManifest
from fuseline.report.dataset import Example, Picture, Piece, Sound
from fuseline.survey.numbers import read_list

CHARS = 220
"""Of a text that are shown."""
SIDE = 160
"""Pixels of a thumbnail's longer side: sharp at 80 on a screen of double density."""
PICTURES = 4
"""Of an example that are shown."""
PEAKS = 48
SOUND_BYTES = 64 << 10
"""Larger recordings are drawn, not played."""
ALL_SOUNDS = 1 << 20
"""Bytes of all recordings on the page together."""
SECONDS = 60
"""Of a recording that are drawn."""
TYPES = {"WAV": "audio/wav", "FLAC": "audio/flac", "OGG": "audio/ogg", "MP3": "audio/mpeg"}


def show(folder: Path, manifest: DataManifest, rows: Iterable[int], splits_N: NDArray[np.int8]) -> dict[int, Example]:
    """Read rows by their numbers, and make examples of them.

    Args:
        splits_N: number of each row's split, ABSENT for none.
    """
    found, left = {}, ALL_SOUNDS
    for row, cells in _read(folder, manifest, sorted(set(rows))):
        example, used = make_example(cells, manifest.task, splits_N[row], left)
        found[row], left = example, left - used
    return found


def _read(folder: Path, manifest: DataManifest, rows: Sequence[int]) -> Iterable[tuple[int, dict[str, Any]]]:
    start, wanted = 0, np.array(rows, np.int64)
    for shard in manifest.shards:
        here = wanted[(wanted >= start) & (wanted < start + shard.rows)]
        if len(here):
            taken: pa.Table = take_rows(folder, shard, (here - start).tolist(), WIDE.names)
            yield from zip(here.tolist(), taken.to_pylist(), strict=True)
        start += shard.rows


def make_example(cells: dict[str, Any], task: str, split: int, sound_bytes: int) -> tuple[Example, int]:
    """Make an example, and say how many bytes of sound it embeds.

    Args:
        sound_bytes: how many it may.
    """
    notes: list[str] = []
    pictures, sounds = [], []
    files = [file for file in (cells["image"], *(cells.get(MORE) or ()), cells["image_pair"]) if file is not None]
    for file in files[:PICTURES]:
        try:
            pictures.append(make_picture(file["bytes"] or b""))
        except DataError as error:
            notes.append(str(error))
    if len(files) > PICTURES:
        notes.append(f"{PICTURES} of {len(files)} pictures are shown")
    used = 0
    for name in ("audio", "audio_pair"):
        if cells[name] is not None:
            data = cells[name]["bytes"] or b""
            fits = len(data) <= min(SOUND_BYTES, sound_bytes - used)
            try:
                sounds.append(make_sound(data, fits))
            except (soundfile.SoundFileError, ValueError, RuntimeError, TypeError) as error:
                notes.append(f"audio cannot be decoded: {error}")
            used += len(data) if fits else 0
    texts, target = mark(task, cells["target"], cells["text"], cells["text_pair"])
    return Example(
        id=cells["id"] or "", split=None if split == ABSENT else SPLITS[split], target=target, texts=texts,
        pictures=pictures, sounds=sounds, notes=notes,
    ), used  # fmt: skip


def mark(task: str, target: str | None, text: str | None, pair: str | None) -> tuple[list[list[Piece]], str | None]:
    """Cut texts to what is shown, the target marked in them where it is a place in them; else return it beside them."""
    if task == "ner":
        spans = [(start, end, str(label)) for start, end, label in read_list(target, 3) if _is_span(start, end)]
        return [*([] if text is None else [cut(text, spans)]), *_plain(pair)], None
    if task == "qa":
        answers = read_list(target, 2)[:1]
        spans = [
            (at, at + len(words), "answer") for at, words in answers if isinstance(words, str) and _is_span(at, at + 1)
        ]
        return [*_plain(text), *([cut(pair, spans)] if pair is not None else [])], None
    shown = target if target is None or len(target) <= CHARS else target[: CHARS - 1] + "…"
    return [*_plain(text), *_plain(pair)], shown


def _is_span(start: Any, end: Any) -> bool:
    return isinstance(start, int) and isinstance(end, int) and 0 <= start < end


def _plain(text: str | None) -> list[list[Piece]]:
    return [] if text is None else [cut(text, [])]


def cut(whole: str, spans: Sequence[tuple[int, int, str]]) -> list[Piece]:
    """Cut a text around its first span into pieces, marked ones and others."""
    ordered = sorted(span for span in spans if span[1] <= len(whole))
    first = ordered[0] if ordered else (0, 0, "")
    start = max(0, first[0] - CHARS // 3) if first[1] > CHARS else 0
    stop = min(len(whole), max(start + CHARS, first[1]))
    pieces, at = [], start
    for begin, end, label in ordered:
        if at <= begin and end <= stop:
            pieces += [Piece(whole[at:begin]), Piece(whole[begin:end], label)]
            at = end
    pieces = [Piece("…" if start else ""), *pieces, Piece(whole[at:stop] + ("…" if stop < len(whole) else ""))]
    return [piece for piece in pieces if piece.text]


def make_picture(data: bytes) -> Picture:
    """Make a thumbnail.

    Raises:
        DataError: the bytes are no picture.
    """
    picture = Image.fromarray(decode_image(data))
    width, height = picture.size
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=80, lossless=max(width, height) <= 64)
    return Picture(_uri("image/webp", buffer.getvalue()), width, height)


def make_sound(data: bytes, playable: bool) -> Sound:
    """Draw a recording's loudness over its first minute, and embed it where it may be played."""
    with soundfile.SoundFile(io.BytesIO(data)) as sound:
        samples = np.abs(
            sound.read(min(sound.frames, SECONDS * sound.samplerate), dtype="float32", always_2d=True)
        ).max(1)
        seconds, kind = sound.frames / sound.samplerate, TYPES.get(sound.format)
    bounds = np.linspace(0, len(samples), min(PEAKS, max(len(samples), 1)) + 1).astype(int)
    peaks = [float(samples[a:b].max(initial=0)) for a, b in itertools.pairwise(bounds)]
    loudest = max([*peaks, 1e-6])
    return Sound(seconds, [peak / loudest for peak in peaks], _uri(kind, data) if playable and kind else None)


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
