"""The little of SVG that the charts need. Built as a tree, so that no label can break out of it."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence
from xml.etree import ElementTree as ET

from markupsafe import Markup

Scale = Callable[[float], float]


def canvas(title: str, desc: str, **attributes: object) -> ET.Element:
    """Start a picture that names and describes itself to those who do not see it."""
    root = ET.Element("svg")
    _set(root, {"role": "img", "focusable": "false", **attributes})
    ET.SubElement(root, "title").text = title
    ET.SubElement(root, "desc").text = desc
    return root


def add(parent: ET.Element, tag: str, content: str | None = None, **attributes: object) -> ET.Element:
    """Append an element; `view_box` becomes viewBox, `css` class, and other underscores dashes."""
    child = ET.SubElement(parent, tag)
    child.text = content
    _set(child, attributes)
    return child


def _set(element: ET.Element, attributes: dict[str, object]) -> None:
    special = {"view_box": "viewBox", "css": "class"}
    for key, value in attributes.items():
        text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
        element.set(special.get(key, key.replace("_", "-")), text)


def markup(root: ET.Element) -> Markup:
    """Serialise a tree for a template that escapes everything else."""
    return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704 (ElementTree has escaped all text)


def columns(text: str) -> int:
    """Estimate how wide a text is; East Asian wide letters take two columns."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def shorten(label: str, most: int) -> str:
    """Cut a label to at most so many columns."""
    if columns(label) <= most:
        return label
    kept = label[:most]
    while columns(kept) >= most:
        kept = kept[:-1]
    return kept + "…"


def shorten_all(labels: Sequence[str], most: int) -> list[str]:
    """Cut labels at the end, or in the middle where some would become the same."""
    names = [shorten(label, most) for label in labels]
    half = most // 2
    return [
        shorten(label, half) + label[-half:] if names.count(name) > 1 and columns(label) > most else name
        for label, name in zip(labels, names, strict=True)
    ]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about `count` round numbers that enclose low and high."""
    if high <= low:
        low, high = low - 0.05, high + 0.05
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def scale(domain: tuple[float, float], span: tuple[float, float]) -> Scale:
    """Map a domain linearly onto a span; a domain of one point lands in the middle."""
    (low, high), (start, end) = domain, span
    if high <= low:
        return lambda _: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)
