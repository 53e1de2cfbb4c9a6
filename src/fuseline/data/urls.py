"""URLs without what may be secret in them: user, password, query and fragment, where a presigned one has its token."""

from __future__ import annotations

import re
from pathlib import Path

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(?:\\?/)+")
"""Slashes may be escaped, as some write JSON; a single letter is a drive."""
_IN_TEXT = re.compile(rf"({_SCHEME.pattern})([^\s\"'<>]+)")


def is_url(text: str) -> bool:
    """Tell a URL from a path."""
    return _SCHEME.match(text) is not None


def clean_url(source: str | Path) -> str:
    """Return a path or URL without what may be secret; a path stays as it is."""
    text = str(source)
    if isinstance(source, Path) or not _SCHEME.search(text):
        return text
    return "::".join(_clean(part) for part in text.split("::"))


def _clean(url: str) -> str:
    scheme = _SCHEME.match(url)
    return url if scheme is None else scheme[0] + _without_secrets(url[scheme.end() :])


def _without_secrets(rest: str) -> str:
    rest = re.split(r"[?#]", rest)[0]
    head, at, tail = rest.rpartition("@")
    return tail if at and ("/" not in head or ":" in head) else rest  # a password may hold a slash


def hide_secrets(text: str) -> str:
    """Clean every URL that stands in a text."""
    return _IN_TEXT.sub(lambda found: found[1] + _without_secrets(found[2]), text)
