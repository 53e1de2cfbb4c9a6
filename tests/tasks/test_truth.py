"""Where units stand among rows."""

import numpy as np

from fuseline.tasks.base import Truth


def test_a_unit_s_row_and_its_number_in_it_are_found_past_rows_without_units():
    truth = Truth(np.zeros(6, np.int64), np.array([2, 0, 1, 0, 3]))
    rows, places = truth.places(np.array([5, 0, 1, 2, 3]))
    assert rows.tolist() == [4, 0, 0, 2, 4]
    assert places.tolist() == [2, 0, 1, 0, 0]
