"""What the names of a batch's files tell, by a pattern: `{target}_{group}_{take}.wav`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from fuseline.data import cells
from fuseline.errors import DataError

FIELDS = ("id", "group", "text", "target", "split")
"""Fields of an example that a name can give, `label` being a target; any other word becomes meta."""


@dataclass(frozen=True)
class Names:
    """A pattern for names: a word in braces stands for what gives a field, empty braces for anything.

    Neither reaches over a slash; the pattern may begin at any folder, and ends where the name ends.
    """

    pattern: str
    regex: re.Pattern[str]

    @classmethod
    def parse(cls, pattern: str) -> Names:
        """Read a pattern.

        Raises:
            DataError: it is not well formed.
        """
        fixed, words = re.split(r"\{[^{}]*\}", pattern), re.findall(r"\{([^{}]*)\}", pattern)
        if not any(words) or any("{" in part or "}" in part for part in fixed):
            raise DataError(f"pattern {pattern!r}: expected fields in braces, such as '{{target}}_{{group}}_{{}}.wav'")
        if {"label", "target"} <= set(words):
            raise DataError(f"pattern {pattern!r}: label and target are the same; leave one out")
        if wrong := [word for word in words if word and not (word.isidentifier() and words.count(word) == 1)]:
            raise DataError(f"pattern {pattern!r}: {wrong[0]!r} is no word, or stands there twice")
        holes = [f"(?P<{word}>[^/]+?)" if word else "[^/]*?" for word in words]
        parts = [re.escape(part) + hole for part, hole in zip(fixed, [*holes, ""], strict=True)]
        return cls(pattern, re.compile(f"(?:.*/)?{''.join(parts)}", re.DOTALL))

    def read(self, name: str) -> dict[str, Any]:
        """Return the cells that a name gives; one that the pattern does not fit has a problem."""
        found = self.regex.fullmatch(name)
        if found is None:
            return {"problem": f"name does not fit the pattern {self.pattern!r}"}
        words = found.groupdict()
        if "label" in words:
            words["target"] = words.pop("label")
        row: dict[str, Any] = {word: words.pop(word) for word in FIELDS if word in words}
        if words:
            row["meta"] = json.dumps(words, ensure_ascii=False)
        try:
            return row | ({"split": cells.to_split(row["split"])} if "split" in row else {})
        except DataError as error:
            return row | {"split": None, "problem": f"split {error}"}
