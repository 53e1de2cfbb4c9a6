"""The `fuseline` command. Imports what a subcommand needs when it runs: predict starts without torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import wraps
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from fuseline.errors import DISK_FULL, DataError, FuselineError, is_disk_full
from fuseline.progress import let_go_of_stdout

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="Keep a multimodal ensemble in service.")  # fmt: skip

Repo = Annotated[Path, typer.Option(help="A folder inside the repository.")]


def told_plainly(command: Callable[..., None]) -> Callable[..., None]:
    """Tell an error that the user can mend in one sentence, exit code 1, without a traceback."""

    @wraps(command)
    def wrapped(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
            sys.stdout.flush()
        except FuselineError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from None
        except BrokenPipeError:
            sys.stderr.close()  # the reader has gone, as `head` does: nothing to tell
            raise typer.Exit(0) from None
        except OSError as error:
            if not is_disk_full(error):
                raise
            let_go_of_stdout()
            typer.echo(f"error: {DISK_FULL}", err=True)
            raise typer.Exit(1) from None

    return wrapped


@app.command()
@told_plainly
def predict(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder, such as champion/.")],
    input_: Annotated[
        Path, typer.Option("--input", help="JSON Lines, CSV or Parquet with text, image, audio (paths), or a folder.")
    ],
    output: Annotated[Path | None, typer.Option(help="Where to write; stdout without it.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows per call of the graph.")] = 32,
    threads: Annotated[int, typer.Option(min=0, help="Threads inside one operator; 0 leaves it to onnxruntime.")] = 0,
    provider: Annotated[list[str] | None, typer.Option(help="Execution providers in order of preference.")] = None,
) -> None:
    """Answer rows with a bundle: one JSON line each, in order."""
    from fuseline.runtime.predictor import Predictor

    predictor = Predictor(bundle, provider or ["CUDAExecutionProvider", "CPUExecutionProvider"], threads)
    answers = answer(predictor, input_, batch_size)
    if output is None:
        for line in answers:
            typer.echo(line)
        sys.stdout.flush()
        return
    part = output.with_name(output.name + ".part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in answers)
        part.replace(output)
    except OSError as error:
        raise DataError(f"{output}: cannot be written ({error.strerror})") from error
    finally:
        with suppress(OSError):
            part.unlink()


def answer(predictor: Any, file: Path, batch_size: int) -> Iterator[str]:
    """Yield one JSON line per row: the row's id where it has one, then what the task answers."""
    from fuseline.runtime.rows import read_rows

    rows = read_rows(file)
    while batch := list(islice(rows, batch_size)):
        found = predictor.answer([row for _, row in batch], batch_size)
        for (document, row), one in zip(batch, found, strict=True):
            named = {"id": document["id"]} if "id" in document else {}
            yield json.dumps(named | predictor.task.answer(row.text, one.probabilities), ensure_ascii=False)


@app.command()
@told_plainly
def status(repo: Repo = Path(), last: Annotated[int, typer.Option(min=1, help="How many runs to list.")] = 5) -> None:
    """Show the champion, the data revision and the last runs."""
    from fuseline import config
    from fuseline.lineage import champion, dvc, git, registry, runs

    root = git.root(repo.resolve())
    name = config.load_publish(root / "params.yaml").name
    now = registry.champion(root, name)
    typer.echo(
        f"champion  {now.tag}, commit {now.commit[:10]}, since {now.assigned}"
        if now
        else "champion  none yet: run `make retrain`"
    )
    if now:
        typer.echo(f"bundle    {champion.describe_installed(root, now.version)}")
    typer.echo(f"data      {dvc.data_digest(root)[:12]}")
    typer.echo(f"versions  {', '.join(registry.versions(root, name)) or 'none'}")
    found = runs.read_runs(root)[:last]
    typer.echo("runs      " + ("none" if not found else ""))
    for run in found:
        when, what = run.started[:16].replace("T", " "), f"{run.state:9}  {run.version or '':8}"
        typer.echo(f"  {when}  {run.run}  {what} {first_line(run.why)}")


def first_line(text: str, limit: int = 90) -> str:
    """Return the beginning of a text, on one line."""
    line = text.splitlines()[0] if text else ""
    return line if len(line) <= limit else line[: limit - 1] + "…"


@app.command()
@told_plainly
def promote(
    version: Annotated[str, typer.Argument(help="A registered version, such as v1.0.0.")], repo: Repo = Path()
) -> None:
    """Make a registered version the champion again: the rollback."""
    from fuseline import config
    from fuseline.lineage import champion, git

    root = git.root(repo.resolve())
    settings = config.load_publish(root / "params.yaml")
    tag = champion.promote(root, settings.name, version, settings.remote)
    typer.echo(f"{settings.name} {version} is the champion ({tag}); champion/ holds its bundle.")


from fuseline.cli import benchmark, compare, data, params, serve, signing, tune  # noqa: E402, F401 (they add their commands to `app`)
