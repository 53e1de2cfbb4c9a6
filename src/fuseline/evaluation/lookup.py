"""Numbers in the evidence, by their dotted paths."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from fuseline.records import Estimate


def look_up(evidence: Mapping[str, Any], path: str) -> tuple[float | None, str]:
    """Return the finite number at a dotted path, or None and why there is none."""
    node, problem = _walk(evidence, path)
    if problem:
        return None, problem
    if isinstance(node, Mapping) and "value" in node:
        node = node["value"]
    if isinstance(node, bool) or not isinstance(node, int | float):
        return None, f"{path} is not a number"
    if not math.isfinite(node):
        return None, f"{path} is {node}, not a finite number"
    return float(node), ""


def find_estimate(evidence: Mapping[str, Any], path: str) -> Estimate | None:
    """Return the finite estimate at a dotted path; None where there is none, or a plain number."""
    node, problem = _walk(evidence, path)
    try:
        found = None if problem else Estimate.model_validate(node)
    except ValidationError:
        return None
    return found if found is not None and math.isfinite(found.value) else None


def _walk(evidence: Mapping[str, Any], path: str) -> tuple[Any, str]:
    node: Any = evidence
    for step in path.split("."):
        if not isinstance(node, Mapping) or step not in node:
            options = ", ".join(sorted(node)) if isinstance(node, Mapping) else "nothing below it"
            return None, f"there is no {path}: {step!r} was not found among {options}"
        node = node[step]
    return node, ""
