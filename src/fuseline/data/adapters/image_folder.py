"""A folder as Hugging Face's ImageFolder and AudioFolder take it: files, and metadata or class folders beside them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa

from fuseline.data.adapters import delimited, lines
from fuseline.data.adapters.names import Names
from fuseline.data.adapters.splits import split_of_folder
from fuseline.data.cells import SPLIT_NAMES
from fuseline.data.columns import refuse_columns
from fuseline.data.drafts import Row, join, to_tables
from fuseline.data.files import AUDIO_SUFFIXES, MEDIA_SUFFIXES, clip, read_file, suffix_of
from fuseline.data.tabular import Batch
from fuseline.errors import DataError

METADATA = {"metadata.jsonl": lines.read, "metadata.csv": delimited.read}


def read(batch: Batch, names: Sequence[str], pattern: Names | None = None) -> Iterator[pa.Table]:
    """Read a folder.

    Where there is metadata, each of its rows is an example, and a file that none names is a row with a problem. Where
    there is none, each file is an example, and its folder's name its label, or its own name tells what it is.

    Args:
        names: all files of the batch.
        pattern: what the files' names tell.

    Raises:
        DataError: a folder holds metadata twice, columns are named and there is no metadata, or there is and names
            are to tell.
    """
    metadata = [name for name in names if posixpath.basename(name) in METADATA]
    if metadata and pattern is not None:
        raise DataError(f"a pattern of names was given, but {clip(metadata[0])} tells what files are; leave one out")
    if metadata:
        yield from _read_metadata(batch, names, metadata)
        return
    refuse_columns(batch.columns, "a folder without metadata")
    if pattern is not None:
        media = (name for name in names if suffix_of(name) in MEDIA_SUFFIXES)
        rows = ((name, {"split": split_of_folder(name)} | pattern.read(name)) for name in media)
        yield from to_tables(_opened(batch, name, row) for name, row in rows)
        return
    yield from to_tables(_labelled(batch, name, label, split) for name, label, split in _labels(names))


def _read_metadata(batch: Batch, names: Sequence[str], metadata: Sequence[str]) -> Iterator[pa.Table]:
    folders = [posixpath.dirname(name) for name in metadata]
    if twice := [folder for folder in folders if folders.count(folder) > 1]:
        raise DataError(f"folder {twice[0] or '.'!r} holds metadata.jsonl and metadata.csv; expected one of them")
    batch = replace(batch, seen=set())
    for name in metadata:
        yield from METADATA[posixpath.basename(name)](batch, name, split_of_folder(name))
    seen = batch.seen or ()
    yield from to_tables(
        {"where": name, "problem": "no metadata names it", "split": split_of_folder(name)}
        for name in names
        if suffix_of(name) in MEDIA_SUFFIXES and name not in seen
    )


def _labels(names: Sequence[str]) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield each example's file, label and split.

    Folders are splits where all of the outermost ones bear a split's name, or else `train` is a class like any other.
    """
    names = [name for name in names if "/" in name or suffix_of(name) in MEDIA_SUFFIXES]
    paths = [posixpath.dirname(name).split("/") if "/" in name else [] for name in names]
    wrapped = _wrapping(paths)
    paths = [path[wrapped:] for path in paths]
    splits = all(path[0].lower() in SPLIT_NAMES for path in paths if path)
    for name, path in zip(names, paths, strict=True):
        split = SPLIT_NAMES[path[0].lower()] if splits and path else None
        classes = path[1:] if split else path
        yield name, classes[-1] if classes else None, split


def _wrapping(paths: Sequence[Sequence[str]]) -> int:
    """Return how many outer folders all files have in common, neither class nor split: an archive's, often."""
    shortest = min(paths, key=len, default=[])
    for depth, part in enumerate(shortest):
        if part.lower() in SPLIT_NAMES or any(len(path) < depth + 2 or path[depth] != part for path in paths):
            return depth
    return 0


def _labelled(batch: Batch, name: str, label: str | None, split: str | None) -> Row:
    row: Row = {"where": name, "target": label, "split": split}
    problem = None if label else "target is missing: the file lies in no class's folder"
    if suffix_of(name) not in MEDIA_SUFFIXES:
        return {**row, "problem": join("file is neither a picture nor sound, by its suffix", problem)}
    return _opened(batch, name, {**row, "problem": problem})


def _opened(batch: Batch, name: str, row: Row) -> Row:
    column = "audio" if suffix_of(name) in AUDIO_SUFFIXES else "image"
    try:
        return {"where": name, **row, column: read_file(batch.root, name)}
    except DataError as error:
        return {"where": name, **row, "problem": join(f"{column} {error}", row.get("problem"))}
