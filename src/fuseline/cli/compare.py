"""`fuseline compare`: before against after."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fuseline.cli import Repo, app, told_plainly


@app.command()
@told_plainly
def compare(
    before: Annotated[
        str, typer.Argument(help="A version (v1.0.0), champion, any git revision, or workspace: what build/ holds.")
    ] = "champion",
    after: Annotated[str, typer.Argument(help="The same.")] = "workspace",
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as one JSON document.")] = False,
    most: Annotated[int, typer.Option(min=1, help="Classes, slices and params to list.")] = 8,
    repo: Repo = Path(),
) -> None:
    """Set two models against each other: metrics, classes and slices on the same test rows, and what was changed."""
    from rich.console import Console

    from fuseline import config
    from fuseline.comparison.difference import tell_difference
    from fuseline.comparison.model import read_model
    from fuseline.comparison.show import show
    from fuseline.lineage import git
    from fuseline.lineage.revisions import resolve

    root = git.root(repo.resolve())
    name = config.load_publish(root / "params.yaml").name
    revisions = [resolve(root, name, asked) for asked in (before, after)]
    found = tell_difference(*(read_model(root, revision) for revision in revisions))
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        show(found, Console(highlight=False), most)
