"""The page of a data set: what it says, that hostile data stays text, and that it fits on a phone."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fuseline.records import Expectation, Leakage, Validation
from fuseline.report import bars, dataset_tables, leaks
from fuseline.report.dataset import (
    Comparison,
    Conflicts,
    Dataset,
    Drift,
    Example,
    Family,
    Part,
    Picture,
    Piece,
    Quarantine,
    Refused,
    Relabelled,
    Repeats,
    Sheet,
    Shift,
    Sound,
    Spread,
)
from fuseline.report.dataset_page import render, tell_drift, tell_labels, tell_repeats
from fuseline.report.page import Story
from fuseline.report.page import render as render_run
from tests.report.test_page import BROWSER, HOSTILE, Page, measure_in_browser

PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
LENGTHS = Spread(unit="characters", rows=60, low=2, p5=3, median=9, p95=30, high=900, edges=[0, 10, 20, 30, 40],
                 counts=[30, 20, 0, 9], over=1)  # fmt: skip
NOTHING = Quarantine(rows=0, rules={}, first=[])


def dataset(labels: list[str], leakage: Leakage, evil: str = "plain", **changes: Any) -> Dataset:
    """Make a data set of classification with everything that a page can show."""
    family = Family(rows=2, exact=False, targets={labels[0]: 2}, shown=[0, 1])
    refused = Refused(batch=0, where=evil, id=evil, reasons={evil: evil})
    drift = Drift(
        revision=evil, data="0" * 32, before=50, after=60, added=11, removed=1, changed=3, relabelled=1,
        labels=[Shift(label=label, before=5, after=6, added=1) for label in labels],
        tests=[Comparison(what="labels", kind="chi-squared", before=50, after=60, distance=0.2, p=1e-9)],
        shown_added=[1], shown_removed=[evil],
        shown_relabelled=[Relabelled(row=0, id=evil, before=evil, after=labels[0])],
    )  # fmt: skip
    fields: dict[str, Any] = {
        "name": evil, "task": "classification", "revision": "9f2c1e7ab04d" + "0" * 20, "rows": 60, "forgotten": 2,
        "shards": [Part(file="shard-0.parquet", source=evil, rows=61, superseded=1, supersedes=0, quarantined=1,
                        waives=[evil])],
        "labels": {label: {"train": 20 + n, "val": 3, "test": 5, "none": n} for n, label in enumerate(labels)},
        "splits": {"train": 41, "val": 6, "test": 12, "none": 1},
        "patterns": {"text + image": 50, "text": 10},
        "spreads": {"Text": LENGTHS}, "sides": {"40 × 36": 50, "9 × 9": 1},
        "gallery": {label: [0, 1] for label in labels},
        "repeats": Repeats(families=1, rows=2, exact=0, largest=[family]),
        "conflicts": Conflicts(contents=1, rows=2, first=[family]), "leakage": leakage,
        "validation": Validation(passed=True, why=evil, rows=60, quarantined=1, expectations=[
            Expectation(rule=evil, passed=False, failed_rows=1)]),
        "broken": [refused], "quarantine": Quarantine(rows=1, rules={evil: 1}, first=[refused]), "drift": drift,
    }  # fmt: skip
    return Dataset(**fields | changes)


def sheet(labels: list[str], leakage: Leakage, evil: str = "plain", **changes: Any) -> Sheet:
    """Make a sheet whose rows 0 and 1 have every modality."""
    example = Example(
        id=evil, split="train", target=labels[0], texts=[[Piece("in "), Piece(evil, evil)], [Piece(evil)]],
        pictures=[Picture(PIXEL, 40, 36), Picture(PIXEL, 400, 300)],
        sounds=[Sound(0.5, [0.1, 1.0, 0.0], "data:audio/wav;base64,AAAA"), Sound(70.0, [], None)], notes=[evil],
    )  # fmt: skip
    data = dataset(labels, leakage, evil, **changes)
    return Sheet(data, "2026-11-25T20:43:00+00:00", {"Rows": "report_docs/rows.html"}, {0: example, 1: example})


def empty(leakage: Leakage, task: str = "classification") -> Sheet:
    """Make a sheet of a data set without rows."""
    changes = {
        "task": task, "rows": 0, "shards": [], "labels": {},
        "splits": dict.fromkeys(["train", "val", "test", "none"], 0), "patterns": {}, "spreads": {},
        "sides": {}, "gallery": {}, "leakage": None, "validation": None, "broken": [],
        "repeats": Repeats(families=0, rows=0, exact=0, largest=[]), "quarantine": NOTHING, "drift": None,
        "conflicts": Conflicts(contents=0, rows=0, first=[]),
    }  # fmt: skip
    return Sheet(dataset(["red"], leakage).model_copy(update=changes), "2026-11-25")


def test_the_page_tells_name_revision_numbers_and_where_it_came_from(leakage: Leakage) -> None:
    page = Page(render(sheet(["red", "blue"], leakage)))
    assert "plain" in page.texts
    assert "9f2c1e7ab04d" in page.texts
    assert "Fit to train on" in page.texts
    assert "61" in page.texts
    assert "red is" not in " ".join(page.texts)
    assert "blue is 1.1 times as frequent as red." in page.texts
    assert page.count("audio") == page.count("img") / 2 == 10


@pytest.mark.parametrize("evil", HOSTILE)
def test_hostile_data_is_shown_as_text(leakage: Leakage, evil: str) -> None:
    harmless = Page(render(sheet(["one", "two"], leakage)))
    hostile = Page(render(sheet([evil, "two"], leakage, evil)))
    assert sorted(tag for tag, _ in hostile.tags) == sorted(tag for tag, _ in harmless.tags)
    assert evil in hostile.texts
    assert not [name for _, attributes in hostile.tags for name in attributes if name.startswith("on")]


def test_nothing_is_fetched_and_nothing_is_run(leakage: Leakage) -> None:
    text = render(sheet(["red", "blue"], leakage))
    page = Page(text)
    sources = [a["src"] for _, a in page.tags if "src" in a]
    assert sources
    assert all(str(source).startswith("data:") for source in sources)
    links = {str(a["href"]) for _, a in page.tags if "href" in a}
    assert {link for link in links if not link.startswith("#")} == {"report_docs/rows.html"}
    assert not re.search(r"url\(|@import|<script|<link|<iframe", text)
    assert "default-src 'none'" in text


def test_every_link_within_the_page_has_its_target(leakage: Leakage) -> None:
    for one in (sheet(["red", "blue"], leakage), empty(leakage)):
        page = Page(render(one))
        ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        targets = {str(a["href"])[1:] for tag, a in page.tags if tag == "a" and str(a["href"]).startswith("#")}
        assert targets <= set(ids)


def test_everything_has_a_name_for_those_who_do_not_see_it(leakage: Leakage) -> None:
    text = render(sheet(["red", "blue"], leakage))
    page = Page(text)
    assert page.count("table") == page.count("caption") >= 10
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in page.tags if tag == "th")
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
    assert all(attributes.get("aria-label") for tag, attributes in page.tags if tag == "audio")
    assert page.count("svg") == len(re.findall(r'<svg role="img".*?><title>.+?</title><desc>.+?</desc>', text))


@pytest.mark.parametrize("task", ["classification", "ner", "qa", "generation"])
def test_an_empty_data_set_says_so(leakage: Leakage, task: str) -> None:
    page = Page(render(empty(leakage, task)))
    assert "Empty" in page.texts
    assert page.count("img") == 0


def test_many_labels_are_charted_in_part_and_listed_in_full(leakage: Leakage) -> None:
    labels = [f"class {n}" for n in range(300)]
    page = Page(render(sheet(labels, leakage, gallery={}, drift=None)))
    assert "All 300 labels, split by split" in page.texts
    assert page.texts.count("class 7") == 1  # the table; the chart has the most frequent
    assert page.texts.count("class 299") == 3  # chart, its title, table


@pytest.mark.parametrize(("distance", "p", "words"), [
    (0.2, 1e-9, "clearly"), (0.1, 1e-9, "clearly"), (0.05, 1e-9, "somewhat"), (0.019, 1e-9, "slightly"),
    (0.5, 0.001, "no more than by chance"), (0.5, 0.0009, "clearly"), (0.0, 1.0, "not at all"),
    (0.0, None, "nothing to compare"),
])  # fmt: skip
def test_a_difference_is_named_by_chance_first_and_size_second(distance: float, p: float | None, words: str) -> None:
    assert dataset_tables.judge(distance, p) == words


def test_repeats_and_leaks_are_told_as_far_as_there_are_any(leakage: Leakage) -> None:
    data = dataset(["red", "blue"], leakage)
    assert tell_repeats(data).startswith(
        "1 family of rows that repeat each other, 2 rows in all; 0 rows have the very content of an "
        "earlier one, the others"
    )
    exact = data.repeats.model_copy(update={"exact": 1})
    assert "the others" not in tell_repeats(data.model_copy(update={"repeats": exact}))
    assert leaks.tell(leakage) == (
        "12 rows repeat an earlier one and share its split; 1 row is held out, which no split could take without a "
        "leak. Rows that as a whole differ from all others, but share one modality with a split nearer to training: "
        "3 with the same text."
    )
    sound = Leakage(duplicates=1, joined=0, largest_family=0, across={}, held_out={})
    assert leaks.tell(sound) == (
        "1 row repeats an earlier one and shares its split; none had to be held out. "
        "No text, picture or sound is in two splits."
    )


def test_a_run_tells_of_its_data_set_and_of_leaks(story: Callable[..., Story]) -> None:
    page = Page(render_run(story()))
    assert "made up" in page.texts
    assert any("3,112 rows in 0 batches" in text for text in page.texts)
    assert leaks.tell(story().leakage) in page.texts


def test_drift_is_told_in_numbers_and_by_what_moved(leakage: Leakage) -> None:
    drift = dataset(["red", "blue"], leakage).drift
    assert drift is not None
    assert tell_drift(drift) == (
        "50 rows became 60: 11 came, 1 went, 3 changed, 1 of them got another label. "
        "Spread otherwise than before: labels."
    )
    still = drift.model_copy(update={"added": 0, "removed": 0, "changed": 0})
    assert tell_drift(still) == "Nothing: both versions hold the same 60 rows."


def test_shifts_are_listed_by_change_of_share(leakage: Leakage) -> None:
    shifts = [Shift(label="a", before=50, after=60, added=10), Shift(label="b", before=50, after=20, added=0),
              Shift(label="c", before=0, after=20, added=20)]  # fmt: skip
    drift = dataset(["red", "blue"], leakage).drift
    assert drift is not None
    table = dataset_tables.shifts(drift.model_copy(update={"labels": shifts}))
    assert [(row[0], row[5], row[6]) for row in table.rows] == [
        ("b", "−30.0", "0.0 %"), ("c", "+20.0", "66.7 %"), ("a", "+10.0", "33.3 %"),
    ]  # fmt: skip


def test_labels_without_examples_are_told(leakage: Leakage) -> None:
    one = dataset(["red", "blue"], leakage)
    counts = {"red": {"train": 4}, "blue": {"train": 0}, "green": {"train": 0}}
    assert (
        tell_labels(one.model_copy(update={"labels": counts})) == "red is the most frequent; 2 labels have no example."
    )


def test_a_histogram_names_each_bin_and_what_lies_beyond(leakage: Leakage) -> None:
    drawn = str(bars.histogram(LENGTHS, "Text"))
    assert "0 to 10 characters: 30 rows" in drawn
    assert "40 characters or more: 1 rows" in drawn
    assert "20 to 30" not in drawn  # an empty bin has no bar
    assert bars.describe(LENGTHS) == "60 rows: 2 to 900 characters, median 9, 90 % from 3 to 30"


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="needs chromium or google-chrome on the PATH")
@pytest.mark.parametrize("width", [390, 1280])
def test_only_tables_scroll_sideways(leakage: Leakage, width: int, tmp_path: Path) -> None:
    labels = [*HOSTILE, *(f"class {n}" for n in range(20))]
    dumped = measure_in_browser(render(sheet(labels, leakage, "w" * 300)), width, tmp_path)
    measured = re.search(r'data-page="(\d+)" data-tables="(\d+)"', dumped)
    assert measured, dumped[-500:]
    assert int(measured[1]) == width
    if width == 390:
        assert int(measured[2]) > 0


PROBE = """<script>
addEventListener("load", () => {
  const shown = (element) => getComputedStyle(element);
  document.body.dataset.ink = shown(document.body).color;
  document.body.dataset.page = shown(document.body).backgroundColor;
  document.body.dataset.pictures = [...document.images].filter((one) => one.complete && one.naturalWidth).length;
});</script>"""


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="needs chromium or google-chrome on the PATH")
@pytest.mark.parametrize(("scheme", "ink", "page"), [
    ("1", "rgb(22, 25, 31)", "rgb(251, 251, 250)"), ("0", "rgb(231, 233, 236)", "rgb(16, 19, 23)"),
], ids=["light", "dark"])  # fmt: skip
def test_a_browser_shows_all_pictures_in_light_and_dark_without_a_complaint(
    leakage: Leakage, tmp_path: Path, scheme: str, ink: str, page: str
) -> None:
    text = render(sheet(["red", "blue"], leakage))
    probed = text.replace("</body>", PROBE + "</body>").replace(
        "default-src", "script-src 'unsafe-inline'; default-src"
    )
    (tmp_path / "page.html").write_text(probed, encoding="utf-8")
    assert BROWSER
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0",
         f"--blink-settings=preferredColorScheme={scheme}", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
         (tmp_path / "page.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert f'data-ink="{ink}" data-page="{page}"' in done.stdout
    assert f'data-pictures="{text.count("<img ")}"' in done.stdout
    assert "CONSOLE" not in done.stderr
