"""`fuseline configure`: what changes params.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fuseline.cli import Repo, app, told_plainly


@app.command()
@told_plainly
def configure(
    overlay: Annotated[
        list[Path], typer.Argument(help="YAML with the keys to set, as examples/*.yaml; `!remove` takes a key out.")
    ],
    repo: Repo = Path(),
) -> None:
    """Lay overlays over params.yaml, one after the other, all or none: what would not be sound is refused."""
    from fuseline.lineage import git
    from fuseline.overlay import lay

    params = git.root(repo.resolve()) / "params.yaml"
    for one, changed in zip(overlay, lay(params, *overlay), strict=True):
        typer.echo(f"{one}  {', '.join(changed) or 'nothing to change'}")
