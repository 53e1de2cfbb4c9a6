"""One tree of errors: each message says what was expected, what was found and what to do."""

import errno
import re

_SHORT = re.compile(
    r"No space left on device|Disk quota exceeded|File too large|database or disk is full|"
    r"\d+ requested and \d+ written"
)
"""What the system says of a full disk, a used-up quota or a bound on files, SQLite, and NumPy."""
DISK_FULL = "no disk space left; free some and run again"


def is_disk_full(error: BaseException) -> bool:
    """Tell whether an error comes from a full disk: not all libraries keep the number of it."""
    return (
        getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        or _SHORT.search(str(error)) is not None
    )


class FuselineError(Exception):
    """Base of every error that a user can mend; shown without a traceback."""


class ConfigError(FuselineError):
    """params.yaml is not what the project expects."""


class DataError(FuselineError):
    """The data set, its manifest or a shard is broken, missing or refused by the contract."""


class ModelError(FuselineError):
    """A checkpoint, pretrained weights or a model's configuration cannot be used."""


class ExportError(FuselineError):
    """An ensemble cannot be written as a bundle."""


class NotFiniteError(ExportError):
    """A score is no finite number."""


class BundleError(FuselineError):
    """A bundle is incomplete, altered or does not fit the input it was given."""


class LineageError(FuselineError):
    """git, DVC or GTO refused, or the history is not what the step expects."""


class PublishError(LineageError):
    """A bundle was not published; the champion stays."""


class NotInstalledError(LineageError):
    """A version became champion by its tags, but champion/ could not be swapped."""
