"""What the snippet of a bundle prints is told apart from what is like it."""

from __future__ import annotations

import pytest

from fuseline.rehearsal.rehearse import tell
from fuseline.tasks.classification import Classification
from fuseline.tasks.multilabel import MultiLabel


def test_a_label_that_begins_with_another_is_not_that_one() -> None:
    (line,) = tell(Classification(["1", "10"]), {"label": "1"})
    assert "1 0.9".startswith(line)
    assert not "10 0.9".startswith(line)


@pytest.mark.parametrize("given", [["a", "ab"], ["ab", "a"]])
def test_several_labels_come_in_the_bundles_order(given: list[str]) -> None:
    assert tell(MultiLabel(["ab", "a"]), {"labels": given}) == ["ab ", "a "]
