"""The best sequence of tags.

Shape letters: U words of one text, C tags.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fuseline.records import Transitions

FORBIDDEN = -1e9
"""Score of a step that no sequence may take; finite, for JSON."""
Floats = NDArray[np.floating]


def decode(scores_UC: Floats, transitions: Transitions) -> list[int]:
    """Return the tags whose scores, with those of the steps between them, sum to the most (Viterbi 1967).

    Of equals the first tag wins: words of which nothing is known are outside.
    """
    if not len(scores_UC):
        return []
    steps_CC = np.array(transitions.steps)
    total_C, back = np.array(transitions.start) + scores_UC[0], []
    for scores_C in scores_UC[1:]:
        reached_CC = total_C[:, None] + steps_CC
        back.append(reached_CC.argmax(0))
        total_C = reached_CC.max(0) + scores_C
    path = [int((total_C + np.array(transitions.end)).argmax())]
    for from_C in reversed(back):
        path.append(int(from_C[path[-1]]))
    return path[::-1]
