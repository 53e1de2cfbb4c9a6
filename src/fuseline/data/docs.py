"""Great Expectations' own pages of what it found, the same bytes for the same findings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from great_expectations.render.renderer import ValidationResultsPageRenderer
from great_expectations.render.view import DefaultJinjaPageView

_CHANGING = re.compile(r"\d{8}T\d{6}\.\d{6}Z|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""Times and random ids: they would make each run's output another."""


def write_docs(folder: Path, results: Sequence[Any]) -> None:
    """Write one page per suite result, named after its suite."""
    folder.mkdir(parents=True, exist_ok=True)
    for result in results:
        for one in result.results:  # a NumPy number cannot be shown there
            observed = one.result.get("observed_value")
            one.result["observed_value"] = observed.item() if isinstance(observed, np.generic) else observed
        page = DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(result))
        name = str(result.suite_name).replace(" ", "-")
        (folder / f"{name}.html").write_text(_CHANGING.sub("0", page), encoding="utf-8")
