"""How numbers look in the report: a true minus, a dash for what is missing, units beside the value."""

from __future__ import annotations

import math

from fuseline.records import Estimate

DASH = "—"
NAMES = {"map": "mAP", "f1": "F1", "macro_f1": "macro F1", "nll": "NLL", "brier": "Brier", "ece": "ECE"}


def name(metric: str) -> str:
    """Name a metric in words, as inside a sentence."""
    return NAMES.get(metric, metric)


def metric(value: float | None) -> str:
    """Format a metric with three decimals."""
    return _sign(f"{value:.3f}") if _is_number(value) else DASH


def gain(value: float | None) -> str:
    """Format a difference with its sign; what rounds to zero has none."""
    text = f"{value:+.3f}" if _is_number(value) else DASH
    return "0.000" if text in ("+0.000", "-0.000") else _sign(text)


def interval(estimate: Estimate | None, signed: bool = False) -> str:
    """Format the bounds of an estimate; a line never breaks between them."""
    if estimate is None:
        return DASH
    if estimate.low is None:
        return "cannot be told"
    form = gain if signed else metric
    return f"[{form(estimate.low)},\N{NO-BREAK SPACE}{form(estimate.high)}]"


def plain(value: float | None) -> str:
    """Format a number of unknown kind: a count in full, anything else with four significant digits."""
    if value is None or not math.isfinite(value):
        return DASH
    return _sign(f"{value:,.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:.4g}")


def milliseconds(value: float) -> str:
    """Format a duration given in milliseconds."""
    decimals = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{decimals}f} ms"


def size(octets: int) -> str:
    """Format a number of bytes in decimal units."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if octets >= scale:
            return f"{octets / scale:,.1f} {unit}"
    return f"{octets} bytes"


def rate(per_second: float) -> str:
    """Format a throughput."""
    return f"{per_second:,.{0 if per_second >= 100 else 1}f} examples/s"


def share(part: float, whole: float) -> str:
    """Format a part of a whole in percent."""
    return DASH if not whole else "100 %" if part == whole else f"{100 * part / whole:.1f} %"


def count(number: int, one: str, many: str) -> str:
    """Format a number of things, with the word for one or for many."""
    return f"{number:,} {one if number == 1 else many}"


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _sign(text: str) -> str:
    return text.replace("-", "−", 1) if text.startswith("-") else text
