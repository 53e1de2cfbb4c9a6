"""Entities in a text: each word gets a tag, and runs of tags are entities.

Shape letters: N rows, U words of all rows, C tags, L labels, R resamples.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from fuseline.inputs.words import Bounds, split_words
from fuseline.records import Decoding, Transitions
from fuseline.tasks.base import (
    Floats,
    Ints,
    Span,
    Task,
    Truth,
    by_name,
    macro_f1,
    probability_metrics,
    probability_summands,
    share,
)
from fuseline.tasks.viterbi import FORBIDDEN, decode

OUTSIDE = "O"
NO_ENTITY = "no entity"
LEAST = 1e-30
"""Lower probabilities count as this: scores of steps are weighed against their logarithms."""


class Ner(Task):
    """Named-entity recognition.

    Args:
        scheme: `bio` marks words that begin an entity and those that go on with it; `bioes` also those that end one,
            and entities of a single word.
        transitions: scores of steps from tag to tag; None allows all that the scheme allows, alike.
    """

    kind = "ner"
    headline = "f1"
    unit = "word"
    needs = ("text",)

    def __init__(self, labels: Sequence[str], scheme: str, transitions: Transitions | None = None) -> None:
        super().__init__(labels)
        self.scheme = scheme
        self.tags = [OUTSIDE, *(f"{part}-{label}" for label in labels for part in _PARTS[scheme])]
        self.transitions = transitions or allow(self.tags, scheme)

    def decided(self, decoding: Decoding) -> Self:
        return type(self)(self.labels, self.scheme, decoding.transitions or self.transitions)

    def constrain(self, learned: Transitions) -> Transitions:
        """Forbid, of steps whose scores were learned, those that the scheme does not allow."""
        allowed = allow(self.tags, self.scheme)
        sums = {name: np.array(getattr(learned, name)) + getattr(allowed, name) for name in type(learned).model_fields}
        return Transitions(**{name: scores.tolist() for name, scores in sums.items()})

    def adopt(self, theirs: Self, probs_UC: Floats) -> tuple[Self, Floats]:
        found = self.decided(Decoding(transitions=_by_name(self, theirs)))
        return found, by_name(probs_UC, theirs.tags, self.tags)

    @property
    def classes(self) -> list[str]:
        return self.tags

    @property
    def weighed(self) -> list[str]:
        return [tag.partition("-")[2] or OUTSIDE for tag in self.tags]

    def number(self, target: str, text: str | None) -> list[int]:
        return self.encode(json.loads(target), split_words(text or ""))

    def encode(self, spans: Iterable[Any], words: Sequence[Bounds]) -> list[int]:
        """Tag words by spans; a word that two spans share belongs to the first."""
        tags, at = [0] * len(words), 0
        for start, end, label in sorted(spans):
            while at < len(words) and words[at][1] <= start:
                at += 1
            first = at
            while at < len(words) and words[at][0] < end:
                at += 1
            for word in range(first, at):
                tags[word] = self.tags.index(f"{_part(self.scheme, word == first, word == at - 1)}-{label}")
        return tags

    def decode(self, tags: Sequence[int], words: Sequence[Bounds]) -> list[Span]:
        """Return the entities that a sequence of tags stands for."""
        return [(words[first][0], words[last][1], label) for first, last, label in self.runs(tags)]

    def runs(self, tags: Sequence[int]) -> list[tuple[int, int, str]]:
        """Return each entity's first and last word, and its label; what goes on with nothing begins one."""
        found: list[tuple[int, int, str]] = []
        for word, tag in enumerate(tags):
            part, _, label = self.tags[tag].partition("-")
            if part in ("B", "S"):
                found.append((word, word, label))
            elif part in ("I", "E"):
                goes_on = bool(found) and found[-1][1:] == (word - 1, label)
                found[-1 if goes_on else len(found) :] = [(found[-1][0] if goes_on else word, word, label)]
        return found

    def find(self, probs_UC: Floats) -> list[int]:
        """Return the best sound sequence of tags for one text's words."""
        return decode(np.log(np.clip(probs_UC, LEAST, 1)), self.transitions)

    def answers(self, probs_UC: Floats, truth: Truth) -> Ints:
        tags = [tag for probs in truth.by_row(probs_UC) for tag in self.find(probs)]
        return np.array(tags, dtype=np.int64)

    def labels_in(self, target: str) -> list[str]:
        """Name the labels of a row's entities, NO_ENTITY for none."""
        return sorted({label for _, _, label in json.loads(target)}) or [NO_ENTITY]

    def name_unit(self, place: int, truth: Truth, row: int, text: str | None) -> str:
        """Give the word, and where it stands."""
        start, end = truth.bounds[row][place]
        return f"{(text or '')[start:end]} [{start}:{end}]"

    def find_truth(self, labels: Sequence[Any], targets: Sequence[str], texts: Sequence[str | None]) -> Truth:
        spans = [[(start, end, label) for start, end, label in json.loads(target)] for target in targets]
        return Truth(*_flat(labels), [split_words(text or "") for text in texts], spans)

    def assume_truth(self, labels: Sequence[Any]) -> Truth:
        """Take words for as long as their number: which of them are entities is all that counts."""
        bounds = [[(word, word + 1) for word in range(len(tags))] for tags in labels]
        spans = [self.decode(tags, words) for tags, words in zip(labels, bounds, strict=True)]
        return Truth(*_flat(labels), bounds, spans)

    def summands(self, probs_UC: Floats, truth: Truth) -> dict[str, Floats]:
        words = probability_summands(probs_UC, truth.labels_U)
        found = [
            self.decode(self.find(probs), bounds)
            for probs, bounds in zip(truth.by_row(probs_UC), truth.bounds, strict=True)
        ]
        right = [set(ours) & set(theirs) for ours, theirs in zip(found, truth.spans, strict=True)]
        return {name: _sum_by_row(values, truth.counts_N) for name, values in words.items()} | {
            "words": truth.counts_N.astype(float),
            "support": self._count(truth.spans),
            "guesses": self._count(found),
            "found": self._count(right),
        }

    def _count(self, rows: Sequence[Iterable[Span]]) -> Floats:
        """Count the entities of each row and label [N, L]."""
        counts_NL = np.zeros((len(rows), len(self.labels)))
        for row, spans in enumerate(rows):
            for *_, label in spans:
                counts_NL[row, self.labels.index(label)] += 1
        return counts_NL

    def metrics(self, sums: Mapping[str, Floats]) -> dict[str, Floats]:
        """Return f1, precision, recall and macro_f1 of entities, and accuracy, nll, brier and ece of words' tags.

        An entity is right if its label and both its ends are. f1, precision and recall are over the entities of all
        labels, macro_f1 is the mean over labels that occur or are predicted.
        """
        found_R, support_R, guesses_R = (sums[name].sum(1) for name in ("found", "support", "guesses"))
        words_R = np.maximum(sums["words"], 1)
        return {
            "f1": share(2 * found_R, support_R + guesses_R),
            "precision": share(found_R, guesses_R),
            "recall": share(found_R, support_R),
            "macro_f1": macro_f1(sums),
            "accuracy": sums["hits"] / words_R,
        } | probability_metrics(sums, words_R)

    def confusion(self, probs_UC: Floats, truth: Truth) -> tuple[list[str], list[list[int]]]:
        """Count words by the label of the entity that they are part of."""
        names = [NO_ENTITY, *self.labels]
        kind_C = np.array([names.index(tag.partition("-")[2] or NO_ENTITY) for tag in self.tags])
        counts = np.zeros((len(names), len(names)), dtype=np.int64)
        np.add.at(counts, (kind_C[truth.labels_U], kind_C[self.answers(probs_UC, truth)]), 1)
        return names, counts.tolist()

    def answer(self, text: str | None, probs: Floats) -> dict[str, Any]:
        """Return the entities: where each stands, its label, its text, and the mean probability of its words' tags."""
        words, tags = split_words(text or ""), self.find(probs)
        return {
            "entities": [
                {
                    "start": words[first][0], "end": words[last][1], "label": label,
                    "text": (text or "")[words[first][0] : words[last][1]],
                    "score": round(float(np.mean([probs[word, tags[word]] for word in range(first, last + 1)])), 6),
                }
                for first, last, label in self.runs(tags)
            ]
        }  # fmt: skip


_PARTS = {"bio": "BI", "bioes": "BIES"}


def _part(scheme: str, first: bool, last: bool) -> str:
    if scheme == "bio":
        return "B" if first else "I"
    return {(True, True): "S", (True, False): "B", (False, False): "I", (False, True): "E"}[first, last]


def allow(tags: Sequence[str], scheme: str) -> Transitions:
    """Score 0 for each step from tag to tag that the scheme allows, FORBIDDEN for the others."""
    closes = {"bio": ("O", "B", "I"), "bioes": ("O", "E", "S")}[scheme]

    def step(one: str, other: str) -> bool:
        before, _, label = one.partition("-")
        after, _, same = other.partition("-")
        if after in ("I", "E"):
            return before in ("B", "I") and label == same
        return before in closes

    return Transitions(
        start=[_score(step(OUTSIDE, tag)) for tag in tags],
        steps=[[_score(step(one, other)) for other in tags] for one in tags],
        end=[_score(tag[0] in closes) for tag in tags],
    )


def _by_name(ours: Ner, theirs: Ner) -> Transitions:
    """Put scores of steps in our order of tags; of tags that they do not know they are ours."""
    known = [number for number, tag in enumerate(ours.tags) if tag in theirs.tags]
    there = [theirs.tags.index(ours.tags[number]) for number in known]
    start, steps, end = (np.array(getattr(ours.transitions, name)) for name in ("start", "steps", "end"))
    start[known], end[known] = (np.array(getattr(theirs.transitions, name))[there] for name in ("start", "end"))
    steps[np.ix_(known, known)] = np.array(theirs.transitions.steps)[np.ix_(there, there)]
    return Transitions(start=start.tolist(), steps=steps.tolist(), end=end.tolist())


def _score(allowed: bool) -> float:
    return 0.0 if allowed else FORBIDDEN


def _flat(labels: Sequence[Sequence[int]]) -> tuple[Ints, Ints]:
    counts = np.array([len(tags) for tags in labels], dtype=np.int64)
    return np.array([tag for tags in labels for tag in tags], dtype=np.int64), counts


def _sum_by_row(values: Floats, counts_N: Ints) -> Floats:
    """Sum what words have, [U] or [U, any], to rows; a row may have none."""
    sums = np.zeros((len(counts_N), *values.shape[1:]))
    np.add.at(sums, np.repeat(np.arange(len(counts_N)), counts_N), values)
    return sums
