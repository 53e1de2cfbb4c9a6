"""Prepared examples as tensors.

Shape letters: B batch, S tokens, W side of the square, C classes.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import Dataset

from fuseline.inputs import MODALITIES, decode_image, encode_texts
from fuseline.models.preprocess import resize
from fuseline.records import digest_of, files_of
from fuseline.training import cache

Picture = Tensor
"""uint8 [side, side, 3]."""
BATCH_BYTES = 64 << 20
"""Pictures that are held in memory at once where they are decoded."""


class Examples(Dataset[dict[str, Any]]):
    """One split, memory-mapped; pictures are decoded and resized once, and kept in the cache.

    Args:
        split: a folder of the prepare stage.
        side: pictures come resized to [side, side, 3].
        modalities: rows with none of these are left out; null keeps all rows.
        change: a random change of each picture, for training.
    """

    def __init__(
        self,
        split: Path,
        side: int,
        modalities: Sequence[str] | None = None,
        change: Callable[[Picture], Picture] | None = None,
    ) -> None:
        self.side, self.change = side, change
        self._files = [_Decoded(file, side) for file in files_of(split)]
        self._batches = [batch for file in self._files for batch in file.batches]
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])
        self._table = pa.Table.from_batches(self._batches)
        self._rows = np.arange(self._table.num_rows)
        if modalities is not None:
            present = self.present()
            self._rows = np.flatnonzero(np.any([present[name] for name in modalities], axis=0))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = self._rows[index]
        at = int(np.searchsorted(self._starts, number, side="right")) - 1
        batch, row = self._batches[at], int(number - self._starts[at])
        picture = batch["image"][row].as_py()
        if picture is not None:
            picture = torch.frombuffer(bytearray(picture), dtype=torch.uint8).view(self.side, self.side, 3)
            if self.change is not None:
                picture = self.change(picture)
        return {"text": batch["text"][row].as_py(), "picture": picture, "label": batch["label"][row].as_py()}

    def thin(self, rows: int) -> None:
        """Keep at most `rows` rows, spread evenly."""
        if rows < len(self):
            self._rows = self._rows[np.linspace(0, len(self) - 1, rows).astype(int)]

    def by_file(self) -> Iterator[tuple[str, Examples]]:
        """Yield the rows of each file apart, with a digest of which they are and what they hold."""
        start = 0
        for file in self._files:
            part = copy.copy(self)
            stop = start + sum(batch.num_rows for batch in file.batches)
            part._rows = self._rows[(self._rows >= start) & (self._rows < stop)]
            chosen = hashlib.sha256((part._rows - start).astype(np.int64).tobytes()).hexdigest()
            start = stop
            if len(part):
                yield f"{file.digest} {chosen}", part

    def column(self, name: str) -> list[Any]:
        """Return a column of the prepared data, files apart, in order."""
        return self._table[name].take(pa.array(self._rows)).to_pylist()  # type: ignore[no-any-return]

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class indices of all rows, in order."""
        return self._table["label"].to_numpy()[self._rows]  # type: ignore[no-any-return]

    def present(self) -> dict[str, NDArray[np.bool_]]:
        """Return for each modality which rows have it, bool [N]."""
        return {name: self._table[name].is_valid().to_numpy()[self._rows] for name in MODALITIES}


class _Decoded:
    """One prepared file with its pictures decoded and resized, memory-mapped from the cache."""

    def __init__(self, file: Path, side: int) -> None:
        self.digest = f"{digest_of(file)} side {side} {_how()}"
        path = cache.fetch("pictures", [self.digest], lambda target: _decode(file, target, side))
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self.batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]


def _how() -> str:
    """Say what, besides the file, the decoded pictures depend on."""
    return f"{cache.code_of('inputs', 'models/preprocess', 'training/examples')} {cache.versions_of('pillow', 'torch')}"


def _decode(file: Path, target: Path, side: int) -> None:
    prepared = pq.ParquetFile(file, pre_buffer=False)
    schema = pa.schema(
        pa.field(field.name, pa.binary() if field.name == "image" else field.type)
        for field in prepared.schema_arrow
        if field.name == "image" or not pa.types.is_struct(field.type)
    )
    rows = max(1, min(1024, BATCH_BYTES // (3 * side * side)))
    with pa.OSFile(str(target), "wb") as out, pa.ipc.new_file(out, schema) as writer:
        for batch in prepared.iter_batches(batch_size=rows, columns=schema.names):
            pictures = [
                cell and to_square(cell["bytes"], side).numpy().tobytes() for cell in batch["image"].to_pylist()
            ]
            columns = {name: batch[name] for name in schema.names} | {"image": pa.array(pictures, pa.binary())}
            writer.write_batch(pa.RecordBatch.from_arrays(list(columns.values()), schema=schema))


def to_square(data: bytes, side: int) -> Picture:
    """Decode and resize with the graph's own arithmetic, rounded to grey levels."""
    pixels_13HW = torch.from_numpy(decode_image(data).copy()).permute(2, 0, 1)[None].float()
    square_WW3: Tensor = resize(pixels_13HW, side)[0].permute(1, 2, 0)
    return square_WW3.round().clamp(0, 255).to(torch.uint8)


class Collator:
    """Make a batch: the arguments of FusionModel.forward, labels as class probabilities.

    Args:
        smoothing: share of each label spread evenly over all classes.
    """

    def __init__(self, tokenizer: Tokenizer | None, side: int, classes: int, smoothing: float = 0.0) -> None:
        self._tokenizer, self.side, self.classes = tokenizer, side, classes
        self.smoothing = smoothing

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        ids_BS, mask_BS = self._tokens([example["text"] for example in examples])
        blank = torch.zeros(self.side, self.side, 3, dtype=torch.uint8)
        pictures = [example["picture"] for example in examples]
        one_hot_BC = torch.eye(self.classes)[[example["label"] for example in examples]]
        return {
            "input_ids": ids_BS,
            "attention_mask": mask_BS,
            "has_text": torch.tensor([example["text"] is not None for example in examples]),
            "pixels": torch.stack([blank if picture is None else picture for picture in pictures]),
            "has_image": torch.tensor([picture is not None for picture in pictures]),
            "labels": one_hot_BC * (1 - self.smoothing) + self.smoothing / self.classes,
        }

    def describe_tokens(self) -> str:
        """Say how texts become tokens."""
        return "" if self._tokenizer is None else str(self._tokenizer.to_str())

    def _tokens(self, texts: list[str | None]) -> tuple[Tensor, Tensor]:
        if self._tokenizer is None:  # a model without text still takes the arguments
            return torch.zeros(len(texts), 1, dtype=torch.long), torch.ones(len(texts), 1, dtype=torch.long)
        ids_BS, mask_BS = encode_texts(self._tokenizer, texts)
        return torch.from_numpy(ids_BS), torch.from_numpy(mask_BS)
