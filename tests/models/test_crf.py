"""The conditional random field against all sequences one by one, and against what it is to learn."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fuseline.models.crf import Crf
from fuseline.records import Decoding, Transitions
from fuseline.tasks.ner import Ner
from fuseline.tasks.viterbi import FORBIDDEN, decode
from fuseline.training.combine import pool_transitions

TAGS = 3


def draw(seed: int, words: int = 4) -> tuple[Crf, Tensor, Tensor]:
    """Draw scores of steps, of words' tags, and tags of three texts."""
    torch.manual_seed(seed)
    crf = Crf(TAGS).double()
    for scores in crf.parameters():
        torch.nn.init.normal_(scores)
    return crf, torch.randn(3, words, TAGS, dtype=torch.float64), torch.randint(TAGS, (3, words))


def total(crf: Crf, logits_WC: Tensor, tags: Any) -> Tensor:
    """Add up the score of one sequence."""
    steps = sum((crf.steps_CC[one, other] for one, other in itertools.pairwise(tags)), torch.tensor(0.0))
    own = logits_WC[range(len(tags)), list(tags)].sum()
    return crf.start_C[tags[0]] + steps + own + crf.end_C[tags[-1]]


@pytest.mark.parametrize("there", [[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]])
@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_that_of_all_sequences_one_by_one(there: list[int], seed: int) -> None:
    crf, logits, tags = draw(seed)
    mask = torch.tensor([there, [1, 1, 1, 0], [1, 0, 1, 1]], dtype=torch.bool)
    expected, words = torch.tensor(0.0, dtype=torch.float64), int(mask.sum())
    for row in range(3):
        own, given = logits[row][mask[row]], tags[row][mask[row]].tolist()
        if given:
            every = torch.stack([total(crf, own, each) for each in itertools.product(range(TAGS), repeat=len(given))])
            expected = expected + every.logsumexp(0) - total(crf, own, given)
    found = crf(logits, tags, mask)
    torch.testing.assert_close(found, expected / words, rtol=1e-9, atol=1e-12)
    slopes = [
        torch.autograd.grad(loss, list(crf.parameters()), retain_graph=True) for loss in (found, expected / words)
    ]
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_without_steps_it_is_the_cross_entropy_of_words() -> None:
    _, logits, tags = draw(0)
    there = torch.ones(3, 4, dtype=torch.bool)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tags.flatten())
    torch.testing.assert_close(Crf(TAGS).double()(logits, tags, there), expected)


@pytest.mark.parametrize("scheme", ["bio", "bioes"])
def test_no_tag_that_is_decoded_is_other_than_the_best_of_all_sound_sequences(scheme: str) -> None:
    chance, wrong = np.random.default_rng(0), 0
    task = Ner(["a"], scheme)
    tags = len(task.tags)
    for _ in range(200):
        raw = Transitions(
            start=chance.normal(0, 2, tags).tolist(), steps=chance.normal(0, 2, (tags, tags)).tolist(),
            end=chance.normal(0, 2, tags).tolist(),
        )  # fmt: skip
        steps = task.constrain(raw)
        probs = np.exp(scores := chance.normal(0, 2, (4, tags)))
        probs /= probs.sum(1, keepdims=True)

        def score(path: Any, raw: Transitions = raw, scores: Any = scores, task: Ner = task) -> float:
            pairs = list(itertools.pairwise(path))
            sound = task.transitions
            hops = [table.steps[one][other] for table in (raw, sound) for one, other in pairs]
            ends = [table.start[path[0]] + table.end[path[-1]] for table in (raw, sound)]
            return float(sum(hops) + sum(ends) + scores[range(len(path)), path].sum())

        best = max(itertools.product(range(tags), repeat=4), key=score)
        assert score(best) > FORBIDDEN / 2
        wrong += sum(one != other for one, other in zip(task.decided(Decoding(transitions=steps)).find(probs), best,
                                                        strict=True))  # fmt: skip
    assert wrong == 0


def test_a_geometric_pool_of_two_is_the_one_that_has_both_their_mean_scores() -> None:
    chance = np.random.default_rng(1)
    tables = [
        Transitions(start=chance.normal(size=3).tolist(), steps=chance.normal(size=(3, 3)).tolist(),
                    end=chance.normal(size=3).tolist()) for _ in range(2)
    ]  # fmt: skip
    plain = Transitions(start=[0.0] * 3, steps=[[0.0] * 3] * 3, end=[0.0] * 3)
    scores = chance.normal(size=(2, 5, 3))
    logs = scores - np.log(np.exp(scores).sum(2, keepdims=True))
    weights, temperature = [0.3, 0.7], 1.7
    pooled = pool_transitions([*tables], plain, weights, temperature)
    assert pooled is not None

    def sequence(path: Any, table: Transitions, own: Any) -> float:
        hops = sum(table.steps[one][other] for one, other in itertools.pairwise(path))
        return float(table.start[path[0]] + hops + table.end[path[-1]] + own[range(5), path].sum())

    def pool(path: Any) -> float:
        return sum(w * sequence(path, t, own) for w, t, own in zip(weights, tables, scores, strict=True))

    mixed = np.tensordot(weights, logs, 1) / temperature
    best = max(itertools.product(range(3), repeat=5), key=pool)
    assert decode(mixed, pooled) == list(best)
    assert pool_transitions([None, None], plain, weights, temperature) is None
    half = pool_transitions([tables[0], None], plain, [0.5, 0.5], 1.0)
    assert half is not None
    assert half.start == pytest.approx([score / 2 for score in tables[0].start])
