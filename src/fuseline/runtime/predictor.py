"""Answer rows with a bundle.

Shape letters: B batch, S tokens, H height, W width, M members, C classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from fuseline.errors import BundleError, DataError
from fuseline.inputs import decode_image, encode_texts
from fuseline.records import Bundle
from fuseline.runtime.bundle import MODEL, TOKENIZER, read_bundle
from fuseline.runtime.session import open_session

Floats = NDArray[np.float32]
Feeds = dict[str, Any]
Run = Callable[[Feeds], Sequence[Floats]]
"""Maps the graph's inputs to its outputs: probabilities, logits, members."""
Picture = NDArray[np.uint8]
NO_PICTURE: Picture = np.zeros((1, 1, 3), dtype=np.uint8)
BATCH_PIXELS = 16_000_000
"""A batch is closed early when its decoded pictures reach this many pixels: camera pictures would fill the memory."""


@dataclass(frozen=True)
class Row:
    """One question: a text, an encoded picture, or both."""

    text: str | None = None
    image: bytes | None = None
    where: str = field(default="a row", compare=False)
    """Where it comes from, for errors."""


@dataclass(frozen=True)
class Answer:
    """One answer: `probabilities` [C], `logits` [C] and the members' `probabilities` [M, C]."""

    probabilities: Floats
    logits: Floats
    members: Floats


class Predictor:
    """A bundle, verified, loaded and ready.

    Args:
        folder: the bundle.
        providers: onnxruntime execution providers in order of preference; those that cannot work here are passed over.
        threads: inside one operator; 0 leaves it to onnxruntime.

    Raises:
        BundleError: the bundle is incomplete, altered, or cannot be loaded.
    """

    def __init__(
        self,
        folder: Path,
        providers: Sequence[str] = ("CUDAExecutionProvider", "CPUExecutionProvider"),
        threads: int = 0,
    ) -> None:
        folder = folder.resolve()  # champion/ is a link: what it points to now is read to the end
        self.bundle: Bundle = read_bundle(folder)
        self.session = open_session(folder / MODEL, providers, threads)
        self.tokenizer: Tokenizer | None = None
        if "text" in self.bundle.modalities:
            self.tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))

    def predict(self, rows: Iterable[Row], batch_size: int = 32, run: Run | None = None) -> Iterator[Answer]:
        """Answer rows one by one, in order, computed in batches; only a batch is held in memory.

        Args:
            batch_size: rows per batch, fewer where pictures are large.
            run: what answers the graph's inputs; the graph itself unless something is to be compared with it.

        Raises:
            BundleError: a row has none of the bundle's modalities.
            DataError: a picture cannot be decoded.
        """
        for batch, pictures in self._batches(rows, batch_size):
            yield from self._predict_batch(batch, pictures, run or self._run)

    def _batches(self, rows: Iterable[Row], batch_size: int) -> Iterator[tuple[list[Row], list[Picture | None]]]:
        batch: list[Row] = []
        pictures: list[Picture | None] = []
        for row in rows:
            batch.append(row)
            pictures.append(None if row.image is None or "image" not in self.bundle.modalities else _decode(row))
            pixels = sum(picture.size // 3 for picture in pictures if picture is not None)
            if len(batch) == batch_size or pixels >= BATCH_PIXELS:
                yield batch, pictures
                batch, pictures = [], []
        if batch:
            yield batch, pictures

    def _run(self, feeds: Feeds) -> Sequence[Floats]:
        outputs: Sequence[Floats] = self.session.run(["probabilities", "logits", "members"], feeds)
        return outputs

    def _predict_batch(self, rows: Sequence[Row], pictures: Sequence[Picture | None], run: Run) -> list[Answer]:
        answers: dict[int, Answer] = {}
        for members in _same_size(pictures):
            outputs = run(self.feeds([rows[i] for i in members], [pictures[i] for i in members]))
            answers |= {i: Answer(*columns) for i, columns in zip(members, zip(*outputs, strict=True), strict=True)}
        return [answers[i] for i in range(len(rows))]

    def feeds(self, rows: Sequence[Row], pictures: Sequence[Picture | None]) -> Feeds:
        """Make the graph's inputs; the pictures that are there must be of one size.

        Raises:
            BundleError: a row has none of the bundle's modalities.
        """
        feeds: Feeds = {}
        if self.tokenizer is not None:
            ids_BS, mask_BS = encode_texts(self.tokenizer, [row.text for row in rows])
            feeds |= {"input_ids": ids_BS, "attention_mask": mask_BS,
                      "has_text": np.array([row.text is not None for row in rows])}  # fmt: skip
        if "image" in self.bundle.modalities:
            shape = next((picture.shape for picture in pictures if picture is not None), NO_PICTURE.shape)
            blank = np.zeros(shape, dtype=np.uint8)
            feeds["pixels"] = np.stack([blank if picture is None else picture for picture in pictures])
            feeds["has_image"] = np.array([picture is not None for picture in pictures])
        present = np.any([feeds[name] for name in ("has_text", "has_image") if name in feeds], axis=0)
        if not present.all():
            where = rows[int(np.argmin(present))].where
            raise BundleError(f"{where} has none of {', '.join(self.bundle.modalities)}; expected at least one")
        return feeds


def _decode(row: Row) -> Picture:
    assert row.image is not None
    try:
        return decode_image(row.image)
    except DataError as error:
        raise DataError(f"{row.where}: {error}") from error


def _same_size(pictures: Sequence[Picture | None]) -> list[list[int]]:
    """Group row numbers by picture size: the graph takes any size, but one per call."""
    groups: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, picture in enumerate(pictures):
        groups[NO_PICTURE.shape if picture is None else picture.shape].append(index)
    return list(groups.values())
