"""Labels in doubt: those that were planted are found, and the definition is kept to."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fuseline.explanation.label_errors import find_label_errors


def test_what_is_found_was_planted():
    random = np.random.default_rng(0)
    true = random.integers(4, size=400)
    probs = random.dirichlet(np.ones(4), 400) * 0.4 + 0.6 * np.eye(4)[true]
    given_labels, planted = true.copy(), random.choice(400, 20, replace=False)
    given_labels[planted] = (true[planted] + 1) % 4
    found = find_label_errors(probs, given_labels)
    assert set(found.units.tolist()) < set(planted.tolist())  # those that are surer than is usual for their class
    assert len(found.units) > 10
    np.testing.assert_array_equal(found.suggested, true[found.units])
    assert (np.diff(found.margins) >= 0).all()


def test_right_labels_leave_nothing_in_doubt():
    labels = np.arange(30) % 3
    assert len(find_label_errors(0.1 + 0.7 * np.eye(3)[labels], labels).units) == 0


def test_no_unit_is_thought_to_be_of_a_class_that_no_label_names():
    probs = np.array([[0.1, 0.2, 0.7]] * 5)
    found = find_label_errors(probs, np.array([0, 0, 1, 1, 1]))
    assert 2 not in found.suggested


@given(st.integers(2, 5), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_it_is_the_off_diagonal_of_the_confident_joint(classes: int, units: int, seed: int):
    random = np.random.default_rng(seed)
    probs, labels = random.dirichlet(np.ones(classes), units), random.integers(classes, size=units)
    expected = {}
    for unit in range(units):
        means = {j: probs[labels == j, j].mean() for j in set(labels.tolist())}
        reached = [j for j in means if probs[unit, j] >= means[j]]
        if reached and (best := max(reached, key=lambda j: probs[unit, j])) != labels[unit]:
            expected[unit] = best
    found = find_label_errors(probs, labels)
    assert dict(zip(found.units.tolist(), found.suggested.tolist(), strict=True)) == expected
