"""Which column of a batch gives which field of a draft."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from fuseline.data.files import clip
from fuseline.data.shards import FILES
from fuseline.errors import DataError
from fuseline.inputs.boxes import BOXES
from fuseline.inputs.image import MORE

ALIASES: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "key"),
    "group": ("group",),
    "text": ("text", "sentence", "text1"),
    "text_pair": ("text_pair", "text2"),
    "image": ("image", "image_path", "image1"),
    MORE: (MORE,),  # of a shard that is sent as a batch
    "image_pair": ("image_pair", "image2"),
    "audio": ("audio", "audio_path", "audio1"),
    "audio_pair": ("audio_pair", "audio2"),
    "file": ("file_name",),  # a picture or a sound, by its suffix
    "target": ("target", "label"),
    "split": ("split",),
    BOXES: (BOXES,),
}
"""Names under which a field is known without being told; the first that a row has gives it."""
CONTENT = ("text", "text_pair", *FILES, MORE, "file")


@dataclass(frozen=True)
class Columns:
    """A batch's columns by field: those that were named, and ALIASES for the rest."""

    named: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        fields = [name for name in ALIASES if name not in ("file", MORE)]
        if unknown := sorted(set(self.named) - set(fields)):
            meant = next((f" (did you mean {name!r}?)" for name in fields if unknown[0] in ALIASES[name]), "")
            raise DataError(f"columns: {unknown[0]!r} is no field{meant}; expected of {', '.join(fields)}")

    def resolve(self, where: str, there: Collection[str], needs: Collection[str] = ("target",)) -> dict[str, list[str]]:
        """Return, of the columns that are there, those that may give each field, in order of preference.

        Raises:
            DataError: a named column is not there, or none gives a needed field or any content.
        """
        listed = f"{where} has the columns {', '.join(map(clip, sorted(there)[:50])) or '(none)'}"
        for name, column in self.named.items():
            if column not in there:
                raise DataError(f"column {column!r}, named for {name}, is not there; {listed}")
        found = self.find(there)
        for name in needs:
            if name not in found:
                raise DataError(
                    f"no column for {name}: expected {' or '.join(ALIASES[name])}, or one named for it, "
                    f"such as {name}=COLUMN; {listed}"
                )
        if found.keys().isdisjoint(CONTENT):
            raise DataError(f"no column for text, image or audio: name one, such as text=COLUMN; {listed}")
        return found

    def find(self, there: Collection[str]) -> dict[str, list[str]]:
        """Return what `resolve` does, unchecked."""
        found = {name: self._of(name, there) for name in ALIASES}
        return {name: columns for name, columns in found.items() if columns}

    def _of(self, name: str, there: Collection[str]) -> list[str]:
        if name in self.named:
            return [self.named[name]] if self.named[name] in there else []
        taken = {column for field, column in self.named.items() if field in (*CONTENT, "target")}
        return [alias for alias in ALIASES[name] if alias in there and alias not in taken]


def refuse_columns(columns: Columns, what: str) -> None:
    """Refuse named columns where a format has none.

    Raises:
        DataError: some were named.
    """
    if columns.named:
        raise DataError(f"columns {', '.join(columns.named.values())} were named, but {what} has no named columns")
