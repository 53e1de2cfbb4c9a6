"""Answer rows with a bundle.

Shape letters: W words, M members, C classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fuseline.errors import BundleError, DataError
from fuseline.inputs import READERS
from fuseline.inputs.base import collate
from fuseline.inputs.boxes import BOXES, Placed, Stretch
from fuseline.inputs.image import COUNTS
from fuseline.inputs.words import PADDING
from fuseline.records import Bundle
from fuseline.runtime.bundle import MODEL, load_bundle, task_of
from fuseline.runtime.session import open_session
from fuseline.runtime.signature import FROM_ENVIRONMENT, Key

Floats = NDArray[np.float32]
Feeds = dict[str, Any]
Run = Callable[[Feeds], Sequence[Floats]]
"""Maps the graph's inputs to its outputs."""
OUTPUTS = ("probabilities", "logits", "members")
Items = dict[str, Any]
"""By modality of the bundle, what its reader made of a row; None where it is missing."""
BATCH_BYTES = 48_000_000
"""A batch is closed early when its decoded items take this much: camera pictures would fill the memory."""


@dataclass(frozen=True)
class Row:
    """One question: a text, an encoded picture or a list of them, an encoded recording, or several of these."""

    text: str | None = None
    image: bytes | Sequence[bytes] | None = None
    """An empty list is no picture."""
    audio: bytes | None = None
    boxes: Sequence[Stretch] = ()
    """Where stretches of the text stand in the picture, as `inputs.boxes.find_error` lets pass."""
    where: str = field(default="a row", compare=False)
    """Where it comes from, for errors."""


@dataclass(frozen=True)
class Answer:
    """One answer: `probabilities` [C], `logits` [C] and the members' `probabilities` [M, C].

    Where words are scored, of each word of the text: [W, C], [W, C] and [W, M, C]; those without a token have all
    classes alike.
    """

    probabilities: Floats
    logits: Floats
    members: Floats


class Predictor:
    """A bundle, verified, loaded and ready.

    Args:
        folder: the bundle.
        providers: onnxruntime execution providers in order of preference; those that cannot work here are passed over.
        threads: inside one operator; 0 leaves it to onnxruntime.
        options: of providers, by their names.
        public_key: file of the key whose owner must have signed the bundle. Left out, the environment variable
            FUSELINE_PUBLIC_KEY names it, where it is set; None asks for no signature.

    Raises:
        BundleError: the bundle is incomplete, altered, or cannot be loaded.
    """

    def __init__(
        self,
        folder: Path | str,
        providers: Sequence[str] = ("CUDAExecutionProvider", "CPUExecutionProvider"),
        threads: int = 0,
        options: Mapping[str, Mapping[str, str]] | None = None,
        public_key: Key = FROM_ENVIRONMENT,
    ) -> None:
        folder = Path(folder).resolve()  # champion/ is a link: what it points to now is read to the end
        loaded = load_bundle(folder, MODEL, public_key)
        self.bundle: Bundle = loaded.bundle
        self.task = task_of(self.bundle)
        self.session = open_session(folder / MODEL, providers, threads, options, loaded.files)
        self.readers = {name: READERS[name].open(loaded) for name in self.bundle.modalities}

    @property
    def several(self) -> bool:
        """Whether rows may have several pictures."""
        return COUNTS.name in self.bundle.inputs

    @property
    def layout(self) -> bool:
        """Whether it is seen where words stand in the picture."""
        return BOXES in self.bundle.inputs

    def answer(self, rows: Iterable[Row], batch_size: int = 32, run: Run | None = None) -> Iterator[Answer]:
        """Answer rows one by one, in order, computed in batches; only a batch is held in memory.

        Args:
            batch_size: rows per batch, fewer where pictures are large.
            run: what answers the graph's inputs; the graph itself unless something is to be compared with it.

        Raises:
            BundleError: a row has none of the bundle's modalities.
            DataError: a file cannot be decoded.
        """
        for batch in self._batches(rows, batch_size):
            yield from self._predict_batch(batch, run or self._run)

    def _batches(self, rows: Iterable[Row], batch_size: int) -> Iterator[list[Items]]:
        batch: list[Items] = []
        taken = 0
        for row in rows:
            batch.append(self.read(row))
            taken += sum(self.readers[name].weigh(item) for name, item in batch[-1].items() if item is not None)
            if len(batch) == batch_size or taken >= BATCH_BYTES:
                yield batch
                batch, taken = [], 0
        if batch:
            yield batch

    def read(self, row: Row) -> Items:
        """Decode what the bundle takes of a row.

        Raises:
            BundleError: that is nothing.
            DataError: a file cannot be decoded.
        """
        given = {name: getattr(row, name) for name in self.readers}
        values = {
            name: None if isinstance(value, list | tuple) and not value else value for name, value in given.items()
        }
        if self.layout and row.text is not None:
            values["text"] = Placed(row.text, row.boxes)
        wanted = self.task.wanted(self.bundle.modalities)
        if all(values[name] is None for name in wanted):
            raise BundleError(f"{row.where} has none of {', '.join(wanted)}; expected at least one")
        try:
            return {name: None if value is None else self.readers[name].read(value) for name, value in values.items()}
        except DataError as error:
            raise DataError(f"{row.where}: {error}") from error

    def answer_read(self, batch: Sequence[Items]) -> list[Answer]:
        """Answer rows that `read` has decoded, in order; those that are alike go into one call of the graph."""
        return self._predict_batch(batch, self._run)

    def _run(self, feeds: Feeds) -> Sequence[Floats]:
        outputs: Sequence[Floats] = self.session.run(OUTPUTS, feeds)
        return outputs

    def _predict_batch(self, batch: Sequence[Items], run: Run) -> list[Answer]:
        answers: dict[int, Answer] = {}
        for numbers in self._alike(batch):
            feeds = self.feeds([batch[number] for number in numbers])
            outputs = zip(*run(feeds), strict=True)
            if self.task.words:
                counts = (feeds["words"] != PADDING).sum(1)
                outputs = (  # type: ignore[assignment]
                    tuple(array[:count] for array in row) for count, row in zip(counts, outputs, strict=True)
                )
            answers |= {number: Answer(*row) for number, row in zip(numbers, outputs, strict=True)}
        return [answers[number] for number in range(len(batch))]

    def _alike(self, batch: Sequence[Items]) -> list[list[int]]:
        """Group row numbers by what goes into one call: the graph takes pictures of any size, but one per call."""
        groups: defaultdict[Hashable, list[int]] = defaultdict(list)
        for number, items in enumerate(batch):
            groups[tuple(self.readers[name].likeness(item) for name, item in items.items())].append(number)
        return list(groups.values())

    def feeds(self, batch: Sequence[Items]) -> Feeds:
        """Make the graph's inputs of rows that are alike."""
        return collate(self.readers, {name: [items[name] for items in batch] for name in self.readers})
