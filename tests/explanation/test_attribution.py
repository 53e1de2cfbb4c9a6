"""Attributions: shares make up the difference to the baseline, and go where the answer comes from."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fuseline.explanation.attribution import STRETCHES, attribute, say_nothing
from fuseline.inputs.base import Reader
from fuseline.models.ensemble import Ensemble
from fuseline.models.member import FusionModel
from fuseline.training.examples import Collator, Examples
from tests.conftest import LABELS, combiner_of, liven

STEPS, GRID = 64, 4


@pytest.fixture
def one(read: Callable[..., Examples], readers: dict[str, Reader]) -> Callable[[int], dict[str, Tensor]]:
    """Give the maker of a batch of one training row."""
    rows, collate = read(), Collator(readers, len(LABELS))

    def make(number: int) -> dict[str, Tensor]:
        batch = collate([rows[number]])
        batch.pop("labels")
        return batch

    return make


@pytest.mark.parametrize("target", [0, 2])
def test_shares_of_words_and_cells_make_up_the_difference_to_the_baseline(target, ensemble: Ensemble, one):
    found = attribute(ensemble, one(0), (target,), STEPS, GRID)
    assert found.tokens is not None
    assert found.cells is not None
    whole = sum(found.tokens) + sum(cell for row in found.cells[0] for cell in row)
    assert whole == pytest.approx(found.difference, abs=0.02 * max(1, abs(found.difference)))
    assert abs(found.difference) > 1e-3
    assert (len(found.cells), len(found.cells[0]), len(found.cells[0][0])) == (1, GRID, GRID)
    assert found.stretches is None


def test_tokens_that_are_kept_get_nothing(ensemble: Ensemble, one):
    batch = one(0)
    kept = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
    kept[0, [0, -1]] = True
    found = attribute(ensemble, batch, (1,), STEPS, GRID, kept)
    assert found.tokens is not None
    assert found.tokens[0] == found.tokens[-1] == 0
    assert any(found.tokens[1:-1])


@pytest.mark.parametrize(("row", "lacks"), [(4, "image"), (6, "text")])
def test_what_a_row_lacks_has_no_shares(row, lacks, ensemble: Ensemble, one):
    batch = one(row)
    assert not batch[f"has_{lacks}"].item()
    found = attribute(ensemble, batch, (1,), STEPS, GRID)
    assert (found.cells if lacks == "image" else found.tokens) is None
    assert (found.tokens if lacks == "image" else found.cells) is not None


def test_an_encoder_that_members_share_is_seen_once(build, expert, fusion, one):
    frozen = {"tuning": "frozen", "learning_rate": {"encoder": None, "head": 1e-2}}
    rates = {"text": None, "image": 2e-3, "head": 1e-2}
    members: dict[str, FusionModel] = {
        "text": build(expert("text", **frozen), 0),
        "fusion": build(fusion(tuning={"text": "frozen", "image": "full"}, learning_rate=rates), 1),
    }
    shared = Ensemble(members, combiner_of([0.5, 0.5])).eval()
    assert len({owner for own in shared.owners for owner in own if owner[1] == "text"}) == 1
    found = attribute(shared, one(0), (1,), STEPS, GRID)
    assert found.tokens is not None
    assert found.cells is not None
    whole = sum(found.tokens) + sum(cell for row in found.cells[0] for cell in row)
    assert whole == pytest.approx(found.difference, abs=0.02 * max(1, abs(found.difference)))


def test_a_picture_that_the_model_does_not_look_at_gets_nothing(build, expert, one):
    alone = Ensemble({"text": liven(build(expert("text"), 0), 0)}, combiner_of([1.0])).eval()
    batch = {key: value for key, value in one(0).items() if "text" in key or key in ("input_ids", "attention_mask")}
    found = attribute(alone, batch, (0,), STEPS, GRID)
    assert found.cells is None
    assert found.tokens is not None


def test_the_baseline_says_nothing():
    batch = {
        "input_ids": torch.tensor([[2, 7, 3]]), "has_text": torch.tensor([True]),
        "pixels": torch.tensor([[[[0, 10, 20]], [[100, 10, 40]]]], dtype=torch.uint8),
        "waveform": torch.ones(1, STRETCHES),
    }  # fmt: skip
    found = say_nothing(batch, torch.tensor([[True, False, True]]))
    assert found["input_ids"].tolist() == [[2, 0, 3]]
    assert found["pixels"].tolist() == [[[[50, 10, 30]], [[50, 10, 30]]]]
    assert found["pixels"].dtype == torch.uint8
    assert not found["waveform"].any()
    assert batch["waveform"].all()
