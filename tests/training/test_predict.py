"""Examples are run in order of their length, and come out in their own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from fuseline.config import Disturb
from fuseline.inputs.base import Reader
from fuseline.models.ensemble import Ensemble
from fuseline.models.member import FusionModel
from fuseline.training.disturb import build_disturbances
from fuseline.training.examples import Collator, Examples
from fuseline.training.predict import batches, in_order_of_length, predict_ensemble, predict_views, run_over

Read, Build = Callable[..., Examples], Callable[..., FusionModel]


@pytest.fixture
def collate(readers: dict[str, Reader]) -> Collator:
    return Collator({"text": readers["text"]}, 3)


def test_batches_are_padded_to_rows_of_near_length_the_longest_first(read: Read, collate: Collator) -> None:
    rows = read("train")
    widths = [batch["input_ids"].shape[1] for batch in batches(rows, collate, in_order_of_length(rows, collate), 4)]
    plain = [batch["input_ids"].shape[1] for batch in batches(rows, collate, list(range(len(rows))), 4)]
    assert widths == sorted(widths, reverse=True)
    assert sum(widths) < sum(plain)


def test_outputs_come_in_the_order_of_the_examples(
    read: Read, build: Build, expert: Callable[..., object], collate: Collator
) -> None:
    model, rows = build(expert()), read("train")
    order = in_order_of_length(rows, collate)
    assert order != sorted(order)

    def tokens(batch: dict[str, Tensor]) -> Tensor:
        return torch.stack([batch["attention_mask"].sum(1), batch["input_ids"].sum(1)], dim=1)

    found = run_over(model, rows, collate, tokens)
    alone = [tokens(collate([rows[number]]))[0].numpy() for number in range(len(rows))]
    np.testing.assert_array_equal(found, alone)


def test_words_come_row_after_row(read: Read, build: Build, expert: Callable[..., object], collate: Collator) -> None:
    """Words without a token count; what fills shorter rows does not."""
    model, rows = build(expert()), read("train")

    def with_words(examples: list[dict[str, object]]) -> dict[str, Tensor]:
        batch = collate(examples)
        batch["words"] = batch["input_ids"].where(batch["attention_mask"] > 0, -2)
        batch["words"][:, 1] = -1
        return batch

    with_words.padded = ["text"]  # type: ignore[attr-defined]
    found = run_over(model, rows, with_words, lambda batch: batch["words"][:, :, None])  # type: ignore[arg-type]
    row_by_row = [with_words([rows[number]])["words"][0].numpy() for number in range(len(rows))]
    assert len({len(row) for row in row_by_row}) > 2
    np.testing.assert_array_equal(found[:, 0], np.concatenate(row_by_row))


def test_views_are_what_the_ensemble_says_of_rows_that_are_shown_so(
    read: Read, readers: dict[str, Reader], ensemble: Ensemble
) -> None:
    rows, collate = read("train"), Collator(readers, 3)
    blur, misspell = (build_disturbances(how, ["text", "image"]) for how in (Disturb(noise=0.5), Disturb(typos=0.9)))
    views = predict_views(ensemble, rows, collate, [["text"], ["image"]], [blur, misspell])
    whole_UC, members_UMC = predict_ensemble(ensemble, rows, collate)
    np.testing.assert_array_equal(views.whole_UC, whole_UC)
    np.testing.assert_array_equal(views.members_UMC, members_UMC)
    for change, found_UC in zip((blur, misspell), views.changed, strict=True):
        alone_UC, _ = predict_ensemble(ensemble, read("train", changes=change), collate)
        np.testing.assert_allclose(found_UC, alone_UC, atol=1e-6)
        assert np.abs(found_UC - whole_UC).max() > 1e-4
    for name, found_UC in zip(("text", "image"), views.patterns, strict=True):
        only = rows.present()[name] & ~rows.present()["image" if name == "text" else "text"]
        np.testing.assert_allclose(found_UC[only], whole_UC[only], atol=1e-6)
        assert np.abs(found_UC - whole_UC)[~only].max() > 1e-4
