"""Rows of several requests to answers, in one call of the graph where they are alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fuseline.errors import BundleError, DataError
from fuseline.runtime.predictor import BATCH_BYTES, Items, Predictor, Row
from fuseline.serving.problems import RequestError

Told = dict[str, Any]


def answer_requests(
    predictor: Predictor, requests: Sequence[Sequence[Row]], most: int
) -> list[list[Told] | RequestError]:
    """Answer requests; one with a row that cannot be read is refused, and the others are answered all the same.

    Args:
        most: rows per call of the graph, fewer where decoded pictures are large.
    """
    told: list[list[Told]] = [[] for _ in requests]
    refused: dict[int, RequestError] = {}
    batch: list[tuple[int, Row, Items]] = []
    taken = 0
    for number, rows in enumerate(requests):
        for place, row in enumerate(rows, start=1):
            try:
                items = predictor.read(row)
            except (DataError, BundleError) as error:
                refused[number] = RequestError(422, "row", str(error), place)
                break
            batch.append((number, row, items))
            taken += predictor.weigh(items)
            if len(batch) == most or taken >= BATCH_BYTES:
                _answer(predictor, batch, told)
                batch, taken = [], 0
    _answer(predictor, batch, told)
    return [refused.get(number, answers) for number, answers in enumerate(told)]


def _answer(predictor: Predictor, batch: Sequence[tuple[int, Row, Items]], told: list[list[Told]]) -> None:
    answers = predictor.answer_read([items for _, _, items in batch])
    for (number, row, _), answer in zip(batch, answers, strict=True):
        told[number].append(predictor.task.answer(row.text, answer.probabilities))
