"""Prepared examples as tensors.

Shape letters: B batch, S tokens, W side of the square, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import Dataset

from fuseline.inputs import MODALITIES, decode_image, encode_texts
from fuseline.models.preprocess import resize

Picture = Tensor
"""uint8 [side, side, 3]."""


class Examples(Dataset[dict[str, Any]]):
    """One split, memory-mapped; pictures are decoded and resized once.

    Args:
        file: a Parquet file of the prepare stage.
        cache: a scratch folder for the memory-mapped copy.
        side: pictures come resized to [side, side, 3].
        modalities: rows with none of these are left out; null keeps all rows.
        change: a random change of each picture, for training.
    """

    def __init__(
        self,
        file: Path,
        cache: Path,
        side: int,
        modalities: Sequence[str] | None = None,
        change: Callable[[Picture], Picture] | None = None,
    ) -> None:
        datasets.disable_progress_bars()
        rows = datasets.Dataset.from_parquet(str(file), cache_dir=str(cache))
        assert isinstance(rows, datasets.Dataset)
        pictures = datasets.Features({**rows.features, "image": datasets.Value("binary")})
        self.rows = rows.cast_column("image", datasets.Image(decode=False)).map(
            lambda row: {"image": row["image"] and to_square(row["image"]["bytes"], side).numpy().tobytes()},
            features=pictures, cache_file_name=str(cache / f"{file.stem}-{side}.arrow"), load_from_cache_file=True,
        )  # fmt: skip
        self.side = side
        self.change = change
        if modalities is not None:
            present = self.present()
            self.rows = self.rows.select(np.flatnonzero(np.any([present[name] for name in modalities], axis=0)))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        picture = None
        if row["image"] is not None:
            picture = torch.frombuffer(bytearray(row["image"]), dtype=torch.uint8).view(self.side, self.side, 3)
        if picture is not None and self.change is not None:
            picture = self.change(picture)
        return {"text": row["text"], "picture": picture, "label": row["label"]}

    def thin(self, rows: int) -> None:
        """Keep at most `rows` rows, spread evenly."""
        if rows < len(self):
            self.rows = self.rows.select(np.linspace(0, len(self) - 1, rows).astype(int))

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class indices of all rows, in order."""
        return np.asarray(self.rows["label"], dtype=np.int64)

    def present(self) -> dict[str, NDArray[np.bool_]]:
        """Return for each modality which rows have it, bool [N]."""
        columns = {name: self.rows.select_columns(name).with_format("arrow")[:][name] for name in MODALITIES}
        return {name: column.is_valid().to_numpy() for name, column in columns.items()}


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

    def _tokens(self, texts: list[str | None]) -> tuple[Tensor, Tensor]:
        if self._tokenizer is None:  # a model without text still takes the arguments
            return torch.zeros(len(texts), 1, dtype=torch.long), torch.ones(len(texts), 1, dtype=torch.long)
        ids_BS, mask_BS = encode_texts(self._tokenizer, texts)
        return torch.from_numpy(ids_BS), torch.from_numpy(mask_BS)
