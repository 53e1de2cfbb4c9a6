"""`fuseline ingest`, `forget`, `quarantine` and `data`: what changes the data set, and what shows it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fuseline.cli import Repo, app, first_line, told_plainly
from fuseline.errors import DataError

quarantine = typer.Typer(no_args_is_help=True, help="Rows that broke the data contract: list, show, release.")
app.add_typer(quarantine, name="quarantine")


@app.command()
@told_plainly
def ingest(
    batch: Annotated[str, typer.Argument(help="A folder, a file, an archive, or any fsspec URL such as s3://….")],
    form: Annotated[str | None, typer.Option("--format", help="The batch's format; found out without it.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="FIELD=NAME: the batch's own name for a field, as text=question.")
    ] = None,
    files: Annotated[
        Path | None, typer.Option(help="Folder that paths in the batch's rows start from, if not the batch's own.")
    ] = None,
    names: Annotated[
        str | None,
        typer.Option(help="What the files' names tell, in a folder without metadata: '{target}_{group}_{}.wav'."),
    ] = None,
    new: Annotated[str | None, typer.Option(help="Begin a new data set of this name with the batch.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be accepted.")] = False,
    allow_forgotten: Annotated[
        bool, typer.Option("--allow-forgotten", help="Take in what was deleted with `forget`, too.")
    ] = False,
    repo: Repo = Path(),
) -> None:
    """Take a batch of labelled examples into the data set: a new version of data/ and data.dvc, or nothing."""
    from fuseline import config
    from fuseline import ingest as room
    from fuseline.lineage import git

    root = git.root(repo.resolve())
    params = config.load(root / "params.yaml")
    done = room.ingest(
        root, batch, params.task, params.validate_,
        form=form, columns=_pairs(column or []), files=files, names=names, new=new, dry_run=dry_run,
        allow_forgotten=allow_forgotten,
    )  # fmt: skip
    _tell(done, dry_run)


def _pairs(columns: list[str]) -> dict[str, str]:
    pairs = {}
    for one in columns:
        field, sign, name = one.partition("=")
        if not (sign and field and name):
            raise DataError(f"--column {one!r}: expected FIELD=NAME, such as text=question")
        pairs[field] = name
    return pairs


def _tell(done: Any, dry_run: bool = False) -> None:
    taken = done.taken
    if taken.known_as:
        typer.echo(f"This batch is in the data set already, as {taken.known_as}; nothing changes.")
        if taken.corrected:
            typer.echo(f"corrected  {taken.corrected:,} of its rows, by newer batches: those stand")
        if taken.forgotten:
            typer.echo(f"forgotten  {taken.forgotten:,} of its rows, on request (--allow-forgotten brings them back)")
        return
    typer.echo(f"{'would accept' if dry_run else 'accepted'}  {taken.accepted:,} of {taken.read:,} rows"
               + (f", {taken.superseded:,} in place of older ones" if taken.superseded else ""))  # fmt: skip
    if taken.unchanged:
        typer.echo(f"unchanged  {taken.unchanged:,} rows that are there already")
    if taken.forgotten:
        typer.echo(f"forgotten  {taken.forgotten:,} rows left out: they, or what they show, were deleted on request "
                   "(--allow-forgotten takes them in)")  # fmt: skip
    if taken.quarantined:
        typer.echo(f"quarantine  {taken.quarantined:,} rows")
        for reason, count in taken.reasons.most_common(10):
            typer.echo(f"  {count:>7,}  {reason}")
        for example in taken.examples:
            typer.echo(f"  {first_line(example, 140)}")
    if dry_run and taken.targets:
        shown = ", ".join(f"{first_line(str(target), 30)} {count:,}" for target, count in taken.targets.most_common(12))
        typer.echo(f"targets  {shown}")
    if dry_run:
        typer.echo("nothing was changed")
    elif done.before == done.after:
        typer.echo(f"data  {done.after[:12]}, unchanged")
    else:
        typer.echo(f"data  {done.before[:12]} → {done.after[:12]}: commit data.dvc, then `make retrain`")


@app.command()
@told_plainly
def forget(
    ids: Annotated[list[str] | None, typer.Option(help="Ids of examples to delete; repeat for more.")] = None,
    ids_file: Annotated[Path | None, typer.Option(help="A file with one id per line.")] = None,
    repo: Repo = Path(),
) -> None:
    """Write a version of the data set without some examples, in all their revisions; no other leaves its split."""
    from fuseline import config
    from fuseline import ingest as room
    from fuseline.lineage import git

    chosen = _ids(ids, ids_file)
    if not chosen:
        raise DataError("no id was given; name them with --ids or --ids-file")
    root = git.root(repo.resolve())
    erased, before, after = room.forget(root, chosen, config.load(root / "params.yaml").prepare)
    typer.echo(f"deleted {erased.examples:,} examples; data {before[:12]} → {after[:12]}: commit data.dvc")
    if erased.copies:
        listed = ", ".join(erased.copies[:10]) + (", …" if len(erased.copies) > 10 else "")
        typer.echo(f"{len(erased.copies):,} other examples show the same, and stay until they are named too: {listed}")
    typer.echo(
        'Older versions still hold them, in DVC\'s cache and remotes; README, under "Delete for good", tells how they '
        "are removed from there. Models trained on them stay as they are."
    )


def _ids(ids: list[str] | None, file: Path | None) -> list[str]:
    lines: list[str] = []
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{file}: cannot be read ({error})") from error
    return [one for one in [*(ids or []), *(line.strip() for line in lines)] if one]


@quarantine.command("list")
@told_plainly
def list_quarantine(repo: Repo = Path()) -> None:
    """List batches with quarantined rows, and the rules that these broke."""
    from fuseline import ingest as room
    from fuseline.lineage import git

    found = room.read_quarantine(git.root(repo.resolve()))
    if not found:
        typer.echo("no row is in quarantine")
    for batch in found:
        broken = ", ".join(f"{rule} {count:,}" for rule, count in batch.rules.most_common())
        typer.echo(f"batch {batch.number}  {batch.rows.num_rows:,} rows  {broken}  from {batch.source}")


@quarantine.command("show")
@told_plainly
def show_quarantine(
    batch: Annotated[int | None, typer.Option(help="Number of the batch; all without it.")] = None,
    rule: Annotated[str | None, typer.Option(help="Only rows that broke this rule.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows at most.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="JSON Lines instead of text.")] = False,
    repo: Repo = Path(),
) -> None:
    """Show quarantined rows, each with where it stood and every reason."""
    from fuseline import ingest as room
    from fuseline.lineage import git

    shown = 0
    for found in room.read_quarantine(git.root(repo.resolve())):
        if batch not in (None, found.number):
            continue
        for row in found.rows.to_pylist():
            if (rule is not None and rule not in row["rules"]) or shown == limit:
                continue
            shown += 1
            if as_json:
                typer.echo(json.dumps({"batch": found.number} | row, ensure_ascii=False))
            else:
                typer.echo(f"batch {found.number}  {row['where'] or ''}  id {row['id']}")
                for key, why in zip(row["rules"], row["reasons"], strict=True):
                    typer.echo(f"    {key}: {why}")
    if not shown:
        typer.echo("no quarantined row fits", err=True)
        sys.exit(1)


@quarantine.command("release")
@told_plainly
def release_quarantine(
    ids: Annotated[list[str] | None, typer.Option(help="Ids of the rows; repeat for more.")] = None,
    ids_file: Annotated[Path | None, typer.Option(help="A file with one id per line.")] = None,
    batch: Annotated[int | None, typer.Option(help="All rows of this batch, or only those among --ids.")] = None,
    waive: Annotated[list[str] | None, typer.Option(help="Rule to release them from; repeat for more.")] = None,
    repo: Repo = Path(),
) -> None:
    """Take quarantined rows in after all: because params.yaml allows them now, or because a rule is waived."""
    from fuseline import config
    from fuseline import ingest as room
    from fuseline.lineage import git

    chosen = _ids(ids, ids_file)
    if not chosen and batch is None:
        raise DataError("name rows with --ids or --ids-file, or a whole batch with --batch")
    root = git.root(repo.resolve())
    params = config.load(root / "params.yaml")
    _tell(room.release(root, params.task, params.validate_, ids=chosen, batch=batch, waive=waive or []))


data = typer.Typer(no_args_is_help=True, help="The data set as a whole.")
app.add_typer(data, name="data")


@data.command()
@told_plainly
def report(
    since: Annotated[
        str | None, typer.Option("--from", help="A git or data revision: tell what changed since then.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The page, X.html, or a folder for it; one in .fuseline/reports without it.")
    ] = None,
    repo: Repo = Path(),
) -> None:
    """Write a page about the data set: examples, balance, duplicates, leaks, quarantine, drift."""
    from fuseline import config
    from fuseline.lineage import git
    from fuseline.survey.report import write_report

    root = git.root(repo.resolve())
    written = write_report(root, config.load(root / "params.yaml"), out, since)
    found = written.dataset
    typer.echo(
        f"data  {found.name}, revision {found.revision[:12]}, {found.rows:,} rows in {len(found.shards):,} batches"
    )
    if found.validation:
        typer.echo(f"contract  {'kept' if found.validation.passed else 'broken'}: {first_line(found.validation.why)}")
    if found.drift:
        drift = found.drift
        typer.echo(f"since {since}  {drift.added:,} rows came, {drift.removed:,} went, {drift.changed:,} changed")
    typer.echo(f"page  {written.page}")
