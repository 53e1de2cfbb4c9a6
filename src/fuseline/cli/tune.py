"""`fuseline tune`: search for a member's numbers."""

from __future__ import annotations

import os
from contextlib import chdir
from pathlib import Path
from typing import Annotated

import typer

from fuseline.cli import Repo, app, told_plainly


@app.command()
@told_plainly
def tune(
    space: Annotated[Path, typer.Argument(help="YAML with the member and the ranges, as examples/tune-text.yaml.")],
    trials: Annotated[int, typer.Option(min=1, help="How many trials, those of earlier calls counted.")] = 20,
    seconds: Annotated[float | None, typer.Option(min=0, help="How long this call may take.")] = None,
    output: Annotated[Path, typer.Option(help="Where the best values go, for `fuseline configure`.")] = Path(
        "tuned.yaml"
    ),
    repo: Repo = Path(),
) -> None:
    """Search for better numbers of a member's training on validation; called again, it goes on."""
    from fuseline.lineage import git
    from fuseline.search.run import check_fresh, search
    from fuseline.search.study import write_overlay

    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    space, output = space.resolve(), output.resolve()
    with chdir(git.root(repo.resolve())):
        check_fresh(Path("params.yaml"), space)
        found = search(Path("params.yaml"), space, trials, seconds)
    write_overlay(found, space, output)
    before = "" if found.before is None else f", params.yaml as it stands {found.before:.4f}"
    typer.echo(f"{found.name}: {found.trials} trials, {found.pruned} pruned; best {found.value:.4f}{before}")
    typer.echo(f"{output}  {', '.join(f'{key}: {value}' for key, value in found.best.items())}")
