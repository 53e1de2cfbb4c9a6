"""Write the page of the working tree's data set, beside it the numbers as JSON and Great Expectations' Data Docs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from fuseline.config import Params
from fuseline.data.arrivals import read_rows
from fuseline.data.contract import Report
from fuseline.data.dealing import Prepared, deal_rows
from fuseline.data.docs import write_docs
from fuseline.data.facts import workers
from fuseline.data.rewrite import TOLD
from fuseline.data.shards import check_file
from fuseline.data.split import ABSENT, Codes
from fuseline.data.validation import hold
from fuseline.errors import DataError
from fuseline.lineage import data as versions
from fuseline.lineage.workspace import STATE
from fuseline.records import DataManifest
from fuseline.report.dataset import WIDE, Dataset, Drift, Quarantine, Refused, Repeats, Sheet
from fuseline.report.dataset_page import render
from fuseline.survey import numbers
from fuseline.survey.drift import compare
from fuseline.survey.repeats import find_conflicts, find_repeats
from fuseline.survey.rows import Held, read
from fuseline.survey.show import show

SHOWN = 96
"""Examples in the gallery."""
PER_LABEL, PER_LABEL_LONG = 7, 3
"""Of each label, where texts are short or absent, and where they are long: a line on a wide screen."""
FIRST = 20
"""Rows that are listed with the reasons for which they were not accepted."""


@dataclass(frozen=True)
class Written:
    """Where the page is, and what it says first."""

    page: Path
    dataset: Dataset


def write_report(repo: Path, params: Params, out: Path | None = None, since: str | None = None) -> Written:
    """Write page, JSON and Data Docs.

    Args:
        out: the page, `X.html`, or a folder for report.html; None: a folder of its own in .fuseline/reports.
        since: a git revision, or a data revision that is in git's history: what changed since then is told too.

    Raises:
        DataError: the data set cannot be read, or is not the one that params.yaml describes.
        LineageError: data/ was changed by hand, or the earlier version cannot be had.
    """
    with versions.snapshot(repo) as (revision, folder):
        held = read(folder)
        with _earlier(repo, since) as earlier:
            drift = earlier and compare(read(earlier[1]), held, since or "", earlier[0])
        page = _place(repo, out, revision, drift)
        dataset, splits_N, results = survey(held, params, revision, drift)
        examples = show(folder, held.manifest, named_rows(dataset), splits_N)
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        links = _write_docs(page, results)
        sheet = Sheet(dataset, datetime.now(UTC).isoformat(timespec="seconds"), links, examples)
        page.write_text(render(sheet), encoding="utf-8")
        dataset.write(page.with_suffix(".json"))
    except OSError as error:
        raise DataError(f"{page}: cannot be written ({error.strerror})") from error
    return Written(page, dataset)


@contextmanager
def _earlier(repo: Path, since: str | None) -> Iterator[tuple[str, Path] | None]:
    if since is None:
        yield None
        return
    with versions.version_at(repo, since) as found:
        yield found


def _place(repo: Path, out: Path | None, revision: str, drift: Drift | None) -> Path:
    if out is not None:
        return out if out.suffix in (".html", ".htm") else out / "report.html"
    name = f"data-{revision[:12]}" + (f"-from-{drift.data[:12]}" if drift else "")
    return repo / STATE / "reports" / name / "report.html"


def _write_docs(page: Path, results: list[Any]) -> dict[str, str]:
    folder = page.parent / f"{page.stem}_docs"
    if not results:
        return {}
    write_docs(folder, results)
    names = {"Rows": "rows.html", "Data set": "data-set.html"}
    return {name: f"{folder.name}/{file}" for name, file in names.items() if (folder / file).exists()}


def survey(held: Held, params: Params, revision: str, drift: Drift | None) -> tuple[Dataset, Codes, list[Any]]:
    """Put the numbers together; return also the rows' splits, and Great Expectations' results for its Data Docs."""
    manifest = held.manifest
    report, validation, prepared, repeats = Report([], {}), None, None, _NO_REPEATS
    splits_N = np.full(len(held.live_N), ABSENT, np.int8)
    if len(held.rows):
        _, report, validation = hold(held.folder, manifest, params.task, params.validate_)
        prepared = _deal(held, params, report)
        splits_N, repeats = prepared.splits_N, find_repeats(held, prepared.links)
    splits_R = splits_N[held.live_N]
    labels = numbers.count_labels(manifest, held.live["target"], splits_R)
    dataset = Dataset(
        name=manifest.name, task=manifest.task, revision=revision, rows=len(held.rows), forgotten=manifest.forgotten,
        shards=numbers.describe_shards(held), labels=labels, splits=numbers.count_splits(splits_R),
        patterns=numbers.count_patterns(held.live), spreads=numbers.spread_all(held.live, manifest.task),
        sides=numbers.count_sides(held.live),
        gallery=numbers.choose_gallery(manifest, held, labels, SHOWN, _per_label(held)),
        repeats=repeats, conflicts=find_conflicts(held), leakage=prepared.leakage if prepared else None,
        validation=validation, broken=name_broken(held, report), quarantine=read_quarantine(held.folder, manifest),
        drift=drift,
    )  # fmt: skip
    return dataset, splits_N, report.results


def _per_label(held: Held) -> int:
    chars = held.live["text_chars"].drop_null().to_numpy()
    return PER_LABEL_LONG if len(chars) and np.median(chars) > WIDE else PER_LABEL


_NO_REPEATS = Repeats(families=0, rows=0, exact=0, largest=[])


def _deal(held: Held, params: Params, report: Report) -> Prepared:
    with workers() as pool:
        rows = read_rows(held.folder, held.manifest, params.prepare, False, pool)
    return deal_rows(rows, params.prepare, held.rows[sorted(report.reasons)])


def name_broken(held: Held, report: Report) -> list[Refused]:
    """Name the first rows in the data set that break the contract as it is now."""
    stops = np.cumsum([shard.rows for shard in held.manifest.shards])
    return [
        Refused(
            batch=int(np.searchsorted(stops, held.rows[row], side="right")), where=None,
            id=held.table["id"][int(held.rows[row])].as_py(), reasons=report.reasons[row],
        )
        for row in sorted(report.reasons)[:FIRST]
    ]  # fmt: skip


def read_quarantine(folder: Path, manifest: DataManifest) -> Quarantine:
    """Count the rows that were not accepted by the rules they broke, and name the first."""
    rules: Counter[str] = Counter()
    rows, first = 0, list[Refused]()
    for number, shard in enumerate(manifest.shards):
        if shard.quarantine is None:
            continue
        found = pq.read_table(check_file(folder, shard.quarantine, TOLD), columns=list(TOLD))
        rows += found.num_rows
        rules.update(found["rules"].combine_chunks().flatten().to_pylist())
        for row in found.slice(0, FIRST - len(first)).to_pylist():
            reasons = dict(zip(row["rules"], row["reasons"], strict=True))
            first.append(Refused(batch=number, where=row["where"], id=row["id"], reasons=reasons))
    return Quarantine(rows=rows, rules=dict(rules.most_common()), first=first)


def named_rows(dataset: Dataset) -> set[int]:
    """Return the numbers of all rows that the page shows."""
    families = [*dataset.repeats.largest, *dataset.conflicts.first]
    lists = [*dataset.gallery.values(), *(family.shown for family in families)]
    if dataset.drift:
        lists += [dataset.drift.shown_added, [one.row for one in dataset.drift.shown_relabelled]]
    return {row for rows in lists for row in rows}
