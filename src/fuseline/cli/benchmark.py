"""`fuseline benchmark`: how fast a bundle is here."""

from __future__ import annotations

from fuseline.benchmark.__main__ import load_torch
from fuseline.benchmark.command import make_command
from fuseline.cli import app, told_plainly

app.command()(told_plainly(make_command(load_torch)))
