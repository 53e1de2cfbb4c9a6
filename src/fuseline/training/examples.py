"""Prepared examples as tensors.

Shape letters: B batch, W words, N rows, U units (rows; where words or labels are scored, those), C classes.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from fuseline import cache
from fuseline.inputs.base import Reader, collate, flag, vectors
from fuseline.inputs.boxes import BOXES, Placed, parse_boxes
from fuseline.inputs.image import MORE, pictures_of
from fuseline.models.member import IGNORED
from fuseline.records import digest_of, files_of
from fuseline.training.augment import draw_of
from fuseline.training.modalities.base import FileModality, Modality


class Vectors(Protocol):
    """A vector per example, None where there is none."""

    def __getitem__(self, number: int) -> NDArray[np.float32] | None: ...


Change = Callable[[Any, int], Any]
"""From an item and the number to draw from, to another item."""
BATCH_BYTES = 64 << 20
"""Decoded files that are held in memory at once where they are made."""


class Examples(Dataset[dict[str, Any]]):
    """One split, memory-mapped; files are decoded once, and kept in the cache.

    An example holds an item, or None, for each modality, its `label`, and `draw`, the number that its changes are drawn
    from: it follows from seed, epoch and row alone, so that a training that was killed goes on as it would have gone,
    and any number of processes see the same examples.

    Args:
        split: a folder of the prepare stage.
        modalities: what is read of each row.
        only: rows with none of these modalities are left out; null keeps all rows.
        changes: by modality, a random change of its items, for training.
        seed: what is drawn follows from.
    """

    def __init__(
        self,
        split: Path,
        modalities: Mapping[str, Modality],
        only: Sequence[str] | None = None,
        changes: Mapping[str, Change] | None = None,
        seed: int = 0,
    ) -> None:
        self.modalities, self.changes = modalities, dict(changes or {})
        self.seed, self.epoch = seed, 0
        files = files_of(split)
        self._columns = _Store([_fetch_columns(file) for file in files])
        kept = {name: each for name, each in modalities.items() if isinstance(each, FileModality)}
        self._kept = {name: _Store([_fetch_kept(file, each) for file in files]) for name, each in kept.items()}
        self._digests = [digest_of(file) for file in files]
        self._files = np.repeat([file.name for file in files], self._columns.rows)
        self._rows = np.arange(self._columns.table.num_rows)
        self.encoded: dict[str, Vectors] = {}
        """By modality, vectors that stand for its items."""
        self.soft: Sequence[NDArray[np.float32]] | None = None
        """What a student is to say of each row, [C] or [W, C]."""
        if only is not None:
            present = self.present()
            self._rows = np.flatnonzero(np.any([present[name] for name in only], axis=0))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = int(self._rows[index])
        draw = draw_of(self.seed, self.epoch, number)
        items = {
            name: self.encoded[name][index] if name in self.encoded else self._item(name, number, draw)
            for name in self.modalities
        }
        taught = {} if self.soft is None else {"soft": self.soft[index]}
        return items | {"label": self._columns.value("label", number), "draw": draw} | taught

    def _item(self, name: str, number: int, draw: int) -> Any:
        modality = self.modalities[name]
        if not isinstance(modality, FileModality):
            item = self._columns.value(name, number)
            if modality.layout and item is not None:
                item = Placed(item, parse_boxes(self._columns.value(BOXES, number)))
        else:
            kept = self._kept[name].value(name, number)
            item = None if kept is None else modality.restore(kept)
        return self.changes[name](item, draw) if item is not None and name in self.changes else item

    def changed(self, changes: Mapping[str, Change]) -> Examples:
        """Return the same rows with the items of some modalities, and no others, changed."""
        part = copy.copy(self)
        part.modalities, part.changes = {name: self.modalities[name] for name in changes}, dict(changes)
        return part

    def thin(self, rows: int) -> None:
        """Keep at most `rows` rows, spread evenly."""
        if rows < len(self):
            self._rows = self._rows[np.linspace(0, len(self) - 1, rows).astype(int)]

    def choose(self, rows_N: NDArray[np.bool_]) -> None:
        """Keep the chosen rows."""
        self._rows = self._rows[rows_N]

    def by_file(self, modality: str) -> Iterator[tuple[str, NDArray[np.int64], Examples]]:
        """Yield the rows that have a modality, each file's apart.

        With a digest of which they are and what they hold, and their numbers among all.
        """
        start, there, each = 0, self.present()[modality], self.modalities[modality]
        how = each.describe() if isinstance(each, FileModality) else ""
        for digest, rows in zip(self._digests, self._columns.rows, strict=True):
            part = copy.copy(self)
            at = np.flatnonzero(there & (self._rows >= start) & (self._rows < start + rows))
            part._rows, part.modalities, part.changes, part.encoded = self._rows[at], {modality: each}, {}, {}
            chosen = hashlib.sha256((part._rows - start).astype(np.int64).tobytes()).hexdigest()
            start += rows
            if len(part):
                yield f"{digest} {how} {chosen}", at, part

    def lengths(self, names: Sequence[str]) -> NDArray[np.float64]:
        """Return how long rows are, [N]: the sum over modalities of their items' lengths, in means over all rows."""
        found = np.zeros(len(self))
        for name in names:
            cells = self._kept.get(name, self._columns).table[name].take(pa.array(self._rows))
            lengths_N = self.modalities[name].lengths(cells)
            found += lengths_N / max(1.0, lengths_N.mean())
        return found

    def column(self, name: str) -> list[Any]:
        """Return a column of the prepared data, files apart, in order."""
        return self._columns.table[name].take(pa.array(self._rows)).to_pylist()  # type: ignore[no-any-return]

    @property
    def files(self) -> NDArray[np.str_]:
        """Names of the files, which are those of the data set's shards, that the rows stand in, in order."""
        return self._files[self._rows]

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class indices of the units of all rows, in order."""
        labels = self._columns.table["label"]
        if pa.types.is_list(labels.type):
            return labels.take(pa.array(self._rows)).combine_chunks().flatten().to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
        return labels.to_numpy()[self._rows]  # type: ignore[no-any-return]

    def present(self) -> dict[str, NDArray[np.bool_]]:
        """Return for each modality which rows have it, bool [N]."""
        tables = {name: self._kept.get(name, self._columns).table for name in self.modalities}
        return {name: table[name].is_valid().to_numpy()[self._rows] for name, table in tables.items()}


class _Store:
    """Cached Arrow files one after the other, memory-mapped."""

    def __init__(self, paths: Sequence[Path]) -> None:
        readers = [pa.ipc.open_file(pa.memory_map(str(path))) for path in paths]
        files = [[reader.get_batch(number) for number in range(reader.num_record_batches)] for reader in readers]
        self.rows = [sum(batch.num_rows for batch in batches) for batches in files]
        self.batches = [batch for batches in files for batch in batches]
        self.table = pa.Table.from_batches(self.batches, readers[0].schema)
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self.batches)])

    def value(self, column: str, number: int) -> Any:
        at = int(np.searchsorted(self._starts, number, side="right")) - 1
        return self.batches[at][column][number - int(self._starts[at])].as_py()


def _fetch_columns(file: Path) -> Path:
    made_from = [digest_of(file), cache.code_of("training/examples"), cache.versions_of("pyarrow")]
    return cache.fetch("columns", made_from, lambda target: _write_columns(file, target))


def _write_columns(file: Path, target: Path) -> None:
    """Write all columns but the files, as they are; BOXES in any case, for all files are read as one table."""
    prepared = pq.ParquetFile(file, pre_buffer=False)
    held = [
        field
        for field in prepared.schema_arrow
        if not pa.types.is_struct(field.type) and field.name not in (MORE, BOXES)
    ]
    schema = pa.schema([*held, pa.field(BOXES, pa.string())])
    given = [name for name in schema.names if name in prepared.schema_arrow.names]
    with pa.OSFile(str(target), "wb") as out, pa.ipc.new_file(out, schema) as writer:
        for batch in prepared.iter_batches(columns=given):
            none = pa.nulls(len(batch), pa.string())
            columns = [batch[name] if name in given else none for name in schema.names]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))


def _fetch_kept(file: Path, modality: FileModality) -> Path:
    made_from = [digest_of(file), modality.describe(), cache.code_of("training/examples")]
    return cache.fetch(modality.name, made_from, lambda target: _write_kept(file, modality, target))


def _write_kept(file: Path, modality: FileModality, target: Path) -> None:
    """Write one column of files, each decoded."""
    prepared = pq.ParquetFile(file, pre_buffer=False)
    schema = pa.schema([pa.field(modality.name, modality.kept_type)])
    more = [MORE] if modality.name == "image" and MORE in prepared.schema_arrow.names else []
    rows = max(1, min(1024, BATCH_BYTES // modality.kept_bytes // (8 if more else 1)))  # few rows have more than 8
    with pa.OSFile(str(target), "wb") as out, pa.ipc.new_file(out, schema) as writer:
        for batch in _batches(prepared, rows, [modality.name, *more]):
            files = [
                pictures_of(row) if more else row[modality.name] and [row[modality.name]["bytes"]]
                for row in batch.to_pylist()
            ]
            kept = [None if each is None else modality.keep_all(each) for each in files]
            writer.write_batch(pa.RecordBatch.from_arrays([pa.array(kept, modality.kept_type)], schema=schema))


def _batches(prepared: pq.ParquetFile, rows: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield rows, never of two row groups: one holds as many bytes as fit in memory, however few rows that are."""
    for group in range(prepared.num_row_groups):
        yield from prepared.iter_batches(batch_size=rows, row_groups=[group], columns=columns)


class Collator:
    """Make a batch: the arguments of FusionModel.forward, labels as class probabilities.

    Words that are not there, or that no token stands for, have IGNORED in place of them.

    Args:
        readers: by modality, what makes its inputs.
        encoded: modalities whose items are vectors already, and the vectors' size.
        words: whether labels are of words, which only texts have.
    """

    def __init__(
        self, readers: Mapping[str, Reader], classes: int, encoded: Mapping[str, int] | None = None, words: bool = False
    ) -> None:
        self.readers, self.classes, self.encoded, self.words = readers, classes, dict(encoded or {}), words

    @property
    def padded(self) -> list[str]:
        """The modalities whose items are brought to one length."""
        return [name for name in self.readers if name not in self.encoded]

    def only(self, *modalities: str) -> Collator:
        """Return one that makes the inputs of some modalities, of items that are no vectors."""
        return Collator({name: self.readers[name] for name in modalities}, self.classes, words=self.words)

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        items = {name: [example[name] for example in examples] for name in self.readers}
        arrays = collate({name: each for name, each in self.readers.items() if name not in self.encoded}, items)
        for name, size in self.encoded.items():
            arrays[vectors(name)] = np.stack([np.zeros(size, np.float32) if x is None else x for x in items[name]])
            arrays[flag(name)] = np.array([item is not None for item in items[name]])
        labels = [example["label"] for example in examples]
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        if not self.words:
            return tensors | {"labels": torch.eye(self.classes)[torch.tensor(labels)]}
        return tensors | ({"labels": self._tag(labels, tensors["words"])} if "words" in tensors else {})

    def _tag(self, labels: list[list[int]], words_BW: Tensor) -> Tensor:
        labels_BWC = torch.full((*words_BW.shape, self.classes), float(IGNORED))
        for row_WC, tags in zip(labels_BWC, labels, strict=True):
            row_WC[: len(tags)] = torch.eye(self.classes)[tags]
        labels_BWC[words_BW < 0] = IGNORED
        return labels_BWC

    def describe(self) -> str:
        """Say what the inputs of an item depend on."""
        return "; ".join(f"{name} {reader.describe()}" for name, reader in sorted(self.readers.items()))
