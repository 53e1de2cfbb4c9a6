"""The rehearsal: whether the bundle answers where nothing but its own requirements is installed."""

from __future__ import annotations

from fuseline.records.base import Count, Record


class Rehearsal(Record):
    """`rehearsal.json`: the bundle's own snippet on golden rows, in a clean environment."""

    rows: Count
    patterns: dict[str, Count]
    """Rows by the modalities that they have, joined by +."""
    problem: str | None
    """Why nothing was answered; None if all was."""
    agreement: float = 0.0
    """Share of rows with the answer that the runtime gives here."""
    max_difference: float | None = None
    """Of a probability, from the runtime's."""
    evaluation_agreement: float | None = None
    """Share of rows of which all units have the class that was evaluated; of rows with no modality hidden."""
    first_answer_seconds: float | None = None
    """From the start of Python, with all imports."""
    seconds: float
    """All of it, building the environment too."""
    installed: dict[str, str] = {}
    """What the clean environment holds, as it tells itself."""
    python: str | None = None
