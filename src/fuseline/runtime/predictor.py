"""Answer rows with a bundle.

Shape letters: W words, M members, C classes.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fuseline.errors import BundleError, DataError
from fuseline.inputs import READERS
from fuseline.inputs.base import collate
from fuseline.inputs.boxes import BOXES, Placed
from fuseline.inputs.image import COUNTS
from fuseline.inputs.words import PADDING
from fuseline.records import Bundle
from fuseline.runtime.asking import Rows, gather, shape
from fuseline.runtime.bundle import MODEL, load_bundle, task_of
from fuseline.runtime.row import Row
from fuseline.runtime.session import open_session
from fuseline.runtime.signature import FROM_ENVIRONMENT, Key

__all__ = ["Answer", "Predictor", "Row"]

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

    @property
    def classes_(self) -> NDArray[np.str_]:
        """What the columns of `predict_proba` are: the labels, of ner the tags."""
        return np.array(self.task.classes if self.task.unit != "label" else self.task.labels)

    def predict(self, rows: Rows, batch_size: int = 32) -> Any:
        """Answer rows: each with its label, of multilabel a list of labels, of ner one of entities.

        A row (a Row, or a dict with text, image, audio) is answered by one answer, a list or DataFrame by a list, and
        anything lazy (an iterator, the Path of a file or folder of rows) by an iterator, which holds a batch in memory.

        Args:
            batch_size: rows per call of the graph, fewer where pictures are large.

        Raises:
            DataError: naming the row that is none, or cannot be decoded.
            BundleError: a row has none of the bundle's modalities.
        """
        asked, how = gather(rows)
        return shape((self._name(row, one) for row, one in self._pairs(asked, batch_size)), how)

    def predict_proba(self, rows: Rows, batch_size: int = 32) -> Any:
        """Return probabilities, float32, in the order of `classes_`; arguments and errors as of `predict`.

        A row gives [classes], a list or DataFrame [rows, classes], anything lazy an iterator. Of multilabel they are of
        each label by itself; of ner a row gives [words, tags], and several a list of these.
        """
        asked, how = gather(rows)
        probs = (self._columns(one) for _, one in self._pairs(asked, batch_size))
        return shape(probs, how, list if self.task.words else self._stack)

    def explain_modalities(self, rows: Rows, batch_size: int = 32) -> Any:
        """Return, for each row, what each modality that it has adds to the answer: a `Contribution`.

        Each is asked with every set of its modalities, 2^M - 1 questions of which a call of the graph takes
        `batch_size`. Arguments, errors and how answers come as of `predict`.
        """
        from fuseline.runtime.contributions import contribute

        asked, how = gather(rows)
        return shape(contribute(self, asked, batch_size), how)

    def _pairs(self, rows: Iterable[Row], batch_size: int) -> Iterator[tuple[Row, Answer]]:
        waiting: deque[Row] = deque()

        def noted() -> Iterator[Row]:
            for row in rows:
                waiting.append(row)
                yield row

        return ((waiting.popleft(), one) for one in self.answer(noted(), batch_size))

    def _name(self, row: Row, answer: Answer) -> Any:
        return self.task.name(self.task.answer(row.text, answer.probabilities))

    def _columns(self, answer: Answer) -> Floats:
        return answer.probabilities[:, 1] if self.task.unit == "label" else answer.probabilities

    def _stack(self, probs: list[Floats]) -> Floats:
        return np.stack(probs) if probs else np.zeros((0, len(self.classes_)), dtype=np.float32)

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
            taken += self.weigh(batch[-1])
            if len(batch) == batch_size or taken >= BATCH_BYTES:
                yield batch
                batch, taken = [], 0
        if batch:
            yield batch

    def weigh(self, items: Items) -> int:
        """Return how many bytes a row takes that `read` has decoded."""
        return sum(self.readers[name].weigh(item) for name, item in items.items() if item is not None)

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

    def feeds_of(self, rows: Iterable[Row], batch_size: int = 32) -> Iterator[Feeds]:
        """Yield the graph's inputs for rows, as `answer` would give them."""
        for batch in self._batches(rows, batch_size):
            for numbers in self._alike(batch):
                yield self.feeds([batch[number] for number in numbers])

    def feeds(self, batch: Sequence[Items]) -> Feeds:
        """Make the graph's inputs of rows that are alike."""
        return collate(self.readers, {name: [items[name] for items in batch] for name in self.readers})
