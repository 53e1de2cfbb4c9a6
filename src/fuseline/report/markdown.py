"""Tables in Markdown, as model cards and Prefect's pages show them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fuseline.report.tables import Kind, Table

ALIGNED: dict[Kind, str] = {"number": "---:"}


def table(table: Table, caption: bool = False) -> str:
    """Write a table as Markdown has it; cells stand for nothing but themselves.

    Args:
        caption: whether to set it above the table, as a paragraph in bold.
    """
    lines = [
        [escape(name) for name, _ in table.columns],
        [ALIGNED.get(kind, "---") for _, kind in table.columns],
        *([escape(cell) for cell in row] for row in table.rows),
    ]
    told = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"**{escape(table.caption)}**\n\n{told}" if caption else told


def list_tables(tables: Iterable[Table]) -> str:
    """Write tables one beneath the other, each with its caption."""
    return "\n".join(table(each, caption=True) for each in tables)


def escape(text: str) -> str:
    """Take their meaning from signs that Markdown and HTML give one; lines become one."""
    plain = re.sub(r"([\\`*_\[\]|~$:@])", r"\\\1", " ".join(text.split()))
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
