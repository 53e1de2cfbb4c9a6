"""Words get tags and tags become entities: encoding, decoding and what they are scored by."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fuseline.inputs.words import UNSEEN, first_tokens, split_words
from fuseline.records import Transitions
from fuseline.tasks.base import Truth
from fuseline.tasks.ner import Ner
from fuseline.tasks.viterbi import FORBIDDEN, decode

LABELS = ["LOC", "creative-work"]
SCHEMES = ["bio", "bioes"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Rome, 1960", ["Rome", ",", "1960"]),
        ("U.S. don't @bob_x", ["U", ".", "S", ".", "don", "'", "t", "@", "bob", "_", "x"]),
        ("東京に住む", ["東", "京", "に", "住", "む"]),
        ("abc中文", ["abc", "中", "文"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("สวัสดี", ["ส", "วั", "ส", "ดี"]),
        ("Cafe\u0301 \u200b\t\n", ["Cafe\u0301"]),
        ("👍🏽", ["👍", "🏽"]),
        ("", []),
    ],
)
def test_a_text_is_cut_into(text: str, words: list[str]) -> None:
    assert [text[start:end] for start, end in split_words(text)] == words


@given(st.text())
def test_words_hold_every_letter_and_digit_in_order_and_no_blank(text: str) -> None:
    words = split_words(text)
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(words))
    cut = "".join(text[start:end] for start, end in words)
    assert [char for char in cut if char.isspace()] == []
    assert [char for char in cut if char.isalnum()] == [char for char in text if char.isalnum()]


def test_tokens_joined_by_blanks_have_the_words_of_the_text_that_they_were_cut_from() -> None:
    raw, joined = "She didn't visit St. John's (1999).", "She did n't visit St. John 's ( 1999 ) ."
    cut = [[text[start:end] for start, end in split_words(text)] for text in (raw, joined)]
    assert "".join(cut[0]) == "".join(cut[1])


def test_a_word_goes_by_the_first_token_that_has_a_part_in_it() -> None:
    words = [(0, 4), (5, 8), (8, 9), (10, 12)]
    offsets = [(0, 0), (0, 2), (2, 4), (4, 8), (8, 9), (0, 0), (0, 0)]  # [CLS] ro ##me ' is' . [SEP] [PAD]
    assert first_tokens(words, offsets) == [1, 3, 4, UNSEEN]


def spread(lengths: list[tuple[int, int, str]]) -> tuple[list[tuple[int, int]], list[tuple[int, int, str]]]:
    """Lay out words of three letters with blanks between them, and spans of so many words after gaps of so many."""
    word, spans = 0, []
    for gap, length, label in lengths:
        first, last = word + gap, word + gap + length - 1
        spans.append((4 * first, 4 * last + 3, label))
        word = last + 1
    return [(4 * number, 4 * number + 3) for number in range(word + 2)], spans


RUNS = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.sampled_from(LABELS)), max_size=6)


@pytest.mark.parametrize("scheme", SCHEMES)
@given(lengths=RUNS)
def test_what_is_encoded_is_decoded_again(scheme: str, lengths: list[tuple[int, int, str]]) -> None:
    task, (words, spans) = Ner(LABELS, scheme), spread(lengths)
    tags = task.encode(spans, words)
    assert task.decode(tags, words) == spans
    assert task.find(np.eye(len(task.tags))[tags]) == tags  # a sound sequence is left as it is


@pytest.mark.parametrize(("scheme", "tags"), [("bio", ["B-LOC", "I-LOC", "I-LOC", "O", "B-LOC"]),
                                              ("bioes", ["B-LOC", "I-LOC", "E-LOC", "O", "S-LOC"])])  # fmt: skip
def test_a_scheme_marks_words(scheme: str, tags: list[str]) -> None:
    task, (words, spans) = Ner(LABELS, scheme), spread([(0, 3, "LOC"), (1, 1, "LOC")])
    assert [task.tags[tag] for tag in task.encode(spans, words)][:5] == tags


def test_a_span_of_half_a_word_takes_the_word_and_a_shared_word_goes_to_the_first() -> None:
    task = Ner(LABELS, "bio")
    tags = task.encode([(1, 3, "LOC"), (3, 9, "creative-work")], [(0, 4), (5, 9)])
    assert task.decode(tags, [(0, 4), (5, 9)]) == [(0, 4, "LOC"), (5, 9, "creative-work")]


def is_sound(tags: list[str]) -> bool:
    """Tell whether each entity is begun before it goes on and, where ends are marked, ended."""
    ends = any(tag[0] in "ES" for tag in tags)
    for before, after in itertools.pairwise(["O", *tags, "O"]):
        goes_on = after[0] in "IE"
        if goes_on and not (before[0] in "BI" and before[1:] == after[1:]):
            return False
        if ends and before[0] in "BI" and not goes_on:
            return False
    return True


PROBS = arrays.arrays(float, st.tuples(st.integers(1, 4), st.just(9)), elements=st.floats(0.001, 1))


@given(PROBS)
def test_the_sequence_that_is_found_is_sound_and_the_best_of_all_that_are(probs: Any) -> None:
    task = Ner(LABELS, "bioes")
    scores, table = np.log(probs), task.transitions

    def total(tags: tuple[int, ...]) -> float:
        steps = sum(table.steps[one][other] for one, other in itertools.pairwise(tags))
        return table.start[tags[0]] + steps + table.end[tags[-1]] + sum(scores[range(len(tags)), tags])

    found = task.find(probs)
    best = max(total(tags) for tags in itertools.product(range(9), repeat=len(probs)))
    assert total(tuple(found)) == pytest.approx(best)
    assert best > FORBIDDEN / 2
    assert is_sound([task.tags[tag] for tag in found])


def test_scores_of_steps_count() -> None:
    free = Transitions(start=[0.0, 0.0], steps=[[0.0, 0.0], [0.0, 0.0]], end=[0.0, 0.0])
    sticky = free.model_copy(update={"steps": [[1.0, 0.0], [0.0, 1.0]]})
    ending = free.model_copy(update={"end": [0.0, 5.0]})
    scores = np.array([[0.0, -1.0], [-0.4, 0.0], [0.0, -1.0]])
    assert decode(scores, free) == [0, 1, 0]
    assert decode(scores, sticky) == [0, 0, 0]
    assert decode(scores, ending) == [0, 1, 1]
    assert decode(scores[:0], free) == []


def test_words_of_which_nothing_is_known_are_outside() -> None:
    task = Ner(LABELS, "bio")
    probs = np.full((4, 5), 0.2)
    probs[0] = np.eye(5)[1]
    assert [task.tags[tag] for tag in task.find(probs)] == ["B-LOC", "O", "O", "O"]


def truth_of(task: Ner, rows: list[list[str]]) -> Truth:
    """Say what is true of rows of tags."""
    return task.assume_truth([[task.tags.index(tag) for tag in row] for row in rows])


def said(task: Ner, rows: list[list[str]]) -> Any:
    """Give probabilities that say these tags."""
    return 0.9 * np.eye(len(task.tags))[[task.tags.index(tag) for row in rows for tag in row]] + 0.1 / len(task.tags)


def test_entities_count_if_label_and_both_ends_are_right() -> None:
    task = Ner(["LOC", "PER"], "bio")
    true = [["B-LOC", "I-LOC", "O", "B-PER"], ["B-PER", "O"], ["O"]]
    guess = [["B-LOC", "O", "O", "B-PER"], ["B-LOC", "O"], ["B-PER"]]
    truth, probs = truth_of(task, true), said(task, guess)
    sums = {name: rows.sum(0, keepdims=True) for name, rows in task.summands(probs, truth).items()}
    found = {name: float(values[0]) for name, values in task.metrics(sums).items()}
    assert (found["precision"], found["recall"]) == (1 / 4, 1 / 3)
    assert found["f1"] == pytest.approx(2 / 7)
    assert found["accuracy"] == pytest.approx(4 / 7)
    rows, averages = task.table(probs, truth)
    assert [(row.label, row.precision, row.recall, row.support) for row in rows] == [
        ("LOC", 0.0, 0.0, 1), ("PER", 0.5, 0.5, 2),
    ]  # fmt: skip
    assert [(row.label, row.f1) for row in averages] == [
        ("micro", pytest.approx(2 / 7)), ("macro", 0.25), ("weighted", pytest.approx(1 / 3)),
    ]  # fmt: skip
    assert task.confusion(probs, truth) == (["no entity", "LOC", "PER"], [[2, 0, 1], [1, 1, 0], [0, 1, 1]])


def test_an_entity_that_was_given_in_the_midst_of_a_word_cannot_be_found() -> None:
    task = Ner(["LOC"], "bio")
    truth = task.find_truth([[1, 0]], ['[[1, 4, "LOC"]]'], ["Rome is"])
    sums = {
        name: rows.sum(0, keepdims=True) for name, rows in task.summands(said(task, [["B-LOC", "O"]]), truth).items()
    }
    assert task.metrics(sums)["f1"].tolist() == [0.0]
    assert task.metrics(sums)["accuracy"].tolist() == [1.0]


def test_chosen_rows_keep_their_units() -> None:
    task = Ner(["LOC"], "bio")
    truth = truth_of(task, [["B-LOC", "I-LOC"], [], ["O", "B-LOC"]])
    chosen = np.array([False, True, True])
    assert truth.units(chosen).tolist() == [False, False, True, True]
    taken = truth.take(chosen)
    assert (taken.labels_U.tolist(), taken.counts_N.tolist()) == ([0, 1], [0, 2])
    assert taken.spans == [[], [(1, 2, "LOC")]]
    assert task.summands(said(task, [["O", "B-LOC"]]), taken)["found"].tolist() == [[0.0], [1.0]]


def test_an_answer_tells_each_entity_with_its_text_and_how_sure_it_is() -> None:
    task = Ner(["LOC"], "bio")
    probs = np.array([[0.1, 0.8, 0.1], [0.3, 0.1, 0.6], [0.9, 0.05, 0.05]])
    assert task.answer("New  York .", probs) == {
        "entities": [{"start": 0, "end": 9, "label": "LOC", "text": "New  York", "score": 0.7}]
    }
    assert task.answer("", probs[:0]) == {"entities": []}


def test_what_goes_on_with_nothing_begins_an_entity() -> None:
    task = Ner(["ORG", "LOC"], "bio")
    outside, begin, inside, other = (task.tags.index(tag) for tag in ("O", "B-ORG", "I-ORG", "I-LOC"))
    assert task.runs([inside, outside]) == [(0, 0, "ORG")]
    assert task.runs([begin, outside, inside]) == [(0, 0, "ORG"), (2, 2, "ORG")]
    assert task.runs([begin, other, other]) == [(0, 0, "ORG"), (1, 2, "LOC")]
    assert task.runs([begin, inside, inside]) == [(0, 2, "ORG")]
