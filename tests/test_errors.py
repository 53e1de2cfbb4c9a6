"""A full disk is told as such, whichever library met it."""

import errno

import pytest

from fuseline.errors import is_disk_full


@pytest.mark.parametrize(
    ("error", "full"),
    [(OSError(errno.ENOSPC, "x"), True), (OSError("2359296 requested and 463680 written"), True),
     (RuntimeError("write failed: No space left on device"), True), (OSError(errno.EACCES, "x"), False)],
    ids=["the system", "NumPy", "a library in C", "another error"],
)  # fmt: skip
def test_a_full_disk_is_told_by(error, full):
    assert is_disk_full(error) == full
