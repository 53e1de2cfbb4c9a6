"""The report page: what it says, that it is safe, and that it fits on a phone."""

from __future__ import annotations

import dataclasses
import html
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from fuseline.records import Beside, Estimate, Evaluation, Forgetting, Origin, RuleOutcome, Verdict, Versus
from fuseline.report import heat, numbers, svg, tables
from fuseline.report.page import Story, render, tiles

HOSTILE = [
    "<script>alert(1)</script>",
    "\"quoted\" & 'single'",
    "]]></svg><img src=x onerror=alert(1)>",
    "w" * 400,
    "שלום עולם",
    "\u202egnirts desrever",
    "{{ 7 * 7 }}",
]
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
Tell = Callable[..., Story]
EPOCH = {"epoch": 1.0, "train_loss": 0.7, "val_loss": 0.5, "val_score": 0.8}
VOID = {"meta", "wbr", "br", "img", "link", "input"}


class Page(HTMLParser):
    """Collects the tags of a page, and what stands within each kind of tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data.strip())

    def count(self, tag: str) -> int:
        """Count the elements of one kind."""
        return sum(name == tag for name, _ in self.tags)


def judged(rules: list[RuleOutcome], champion: str | None = None, blessed: bool = True) -> Verdict:
    """Give a verdict; what is refused is so for how it is served."""
    return Verdict(blessed=blessed, quality=True, serving=blessed, champion=champion, rules=rules)


def test_a_blessed_run_says_so_in_words_and_names_what_it_replaces(story: Tell) -> None:
    page = Page(render(story()))
    assert "Blessed" in page.texts
    assert "Both rules passed; fusion v1.2.0 takes over from champion v1.1.0." in page.texts


def test_a_refused_run_names_the_failed_rules_and_what_stays(story: Tell, gate: list[RuleOutcome]) -> None:
    page = Page(render(story(verdict=judged(gate, "v1.1.0", blessed=False), version=None)))
    assert "Refused" in page.texts
    assert "1 of 3 rules failed (fast on a GPU); champion v1.1.0 stays." in page.texts


def test_a_first_champion_is_called_one(story: Tell, gate: list[RuleOutcome]) -> None:
    assert "is the first champion." in render(story(verdict=judged(gate[:1])))


def test_a_blessed_bundle_without_a_version_is_not_called_champion(story: Tell) -> None:
    assert "has not been published" in render(story(version=None))


@pytest.mark.parametrize("label", HOSTILE)
def test_hostile_labels_are_shown_as_text(story: Tell, label: str) -> None:
    harmless, hostile = Page(render(story(["one", "two"]))), Page(render(story([label, "two"])))
    assert sorted(tag for tag, _ in hostile.tags) == sorted(tag for tag, _ in harmless.tags)
    assert label in hostile.texts


def test_hostile_strings_are_escaped_everywhere_else(story: Tell) -> None:
    evil = "<script>alert(1)</script>\"'&"
    rule = RuleOutcome(name=evil, metric=evil, value=1.0, bound=f"≥ champion {evil}", passed=True, why=evil,
                       kind="quality", answer="passed")  # fmt: skip
    told = story(name=evil, version=evil, run=evil, created=evil, histories={evil: [EPOCH]}, lineage={evil: evil},
                 verdict=judged([rule], evil))  # fmt: skip
    benchmark = told.benchmark.model_copy(update={"device": evil, "cpu": evil, "gpu": evil, "platform": evil})
    page = Page(render(dataclasses.replace(told, benchmark=benchmark)))
    assert page.count("script") == 0
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_nothing_is_fetched_and_nothing_is_run(story: Tell) -> None:
    text = render(story())
    page = Page(text)
    links = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("href", "src")]
    assert links
    assert all(value and value.startswith(("#", "data:image/webp;base64,")) for value in links)
    assert not re.search(r"url\(|@import|<script|<link|<iframe", text)
    assert "default-src 'none'" in text


def test_every_link_within_the_page_has_its_target(story: Tell) -> None:
    page = Page(render(story()))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {str(attributes["href"])[1:] for tag, attributes in page.tags if tag == "a"} <= set(ids)


def test_every_table_has_a_caption_and_every_heading_a_scope(story: Tell) -> None:
    page = Page(render(story()))
    assert page.count("table") == page.count("caption") >= 9
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in page.tags if tag == "th")


def test_every_chart_is_an_image_with_a_title_and_a_description(story: Tell) -> None:
    text = render(story())
    charts = re.findall(r'<svg role="img".*?><title>(.+?)</title><desc>(.+?)</desc>', text)
    assert len(charts) == 8


@pytest.mark.parametrize(
    ("error", "words"), [(0.06, "is further off than chance explains"), (0.04, "nothing here says")]
)
def test_the_calibration_error_is_set_beside_what_chance_shows(story: Tell, error: float, words: str) -> None:
    evaluation = story().evaluation
    reached = evaluation.ensemble | {"ece": Estimate(value=error, low=0.02, high=0.08)}
    text = render(story(evaluation=evaluation.model_copy(update={"ensemble": reached})))
    assert words in text
    assert "in nine of ten cases 0.020 to 0.045" in text
    assert "confidence 0.400: 0.350 of 20 right" in text


def test_a_rule_without_a_number_shows_a_dash(story: Tell, gate: list[RuleOutcome]) -> None:
    text = render(story(verdict=judged(gate, "v1.1.0", blessed=False), version=None))
    assert f'<td class="number"><bdi>{numbers.DASH}</bdi></td>' in text


def test_a_margin_without_a_champion_says_why_and_boasts_no_gain(story: Tell) -> None:
    rule = RuleOutcome(name="no worse", metric="evaluation.ensemble.accuracy", value=None, bound="≥ champion -0.01",
                       passed=True, kind="quality", answer="passed",
                       why="there is no champion yet to compare with")  # fmt: skip
    page = Page(render(story(verdict=judged([rule]))))
    assert "Gain over champion" not in page.texts
    assert rule.why in page.texts


def test_a_margin_shows_the_gain_over_the_champion(story: Tell) -> None:
    page = Page(render(story()))
    tile = page.texts.index("Gain over champion")
    assert "+0.021" in page.texts[tile : tile + 3]


def test_the_device_stands_wherever_speed_is_told(story: Tell) -> None:
    page = Page(render(story()))
    assert sum(story().benchmark.device in text for text in page.texts) >= 5


def test_batch_sizes_are_sorted_as_numbers(story: Tell) -> None:
    page = Page(render(story()))
    assert [text for text in page.texts if re.fullmatch(r"Batch \d+", text)] == ["Batch 1", "Batch 8", "Batch 16"]


@pytest.mark.parametrize(("count", "has_heat"), [(2, True), (heat.MAX_CLASSES, True), (60, False)])
def test_the_heat_map_is_drawn_only_while_it_can_be_read(story: Tell, count: int, has_heat: bool) -> None:
    page = Page(render(story([f"class {number}" for number in range(count)])))
    assert ("Confusion matrix" in page.texts) is has_heat
    assert "Most frequent confusions" in page.texts


def test_an_ensemble_without_errors_has_no_table_of_confusions(story: Tell) -> None:
    flawless = story().evaluation.model_dump() | {"labels": ["a", "b"], "confusion": [[5, 0], [0, 0]]}
    text = render(story(evaluation=Evaluation.model_validate(flawless)))
    assert "No test row was confused." in text


@pytest.mark.parametrize("rows", [
    [],
    [EPOCH],
    [{"epoch": 1.0, "val_loss": 0.5, "val_score": 0.8}],
    [{"epoch": 1.0, "train_loss": float("nan"), "val_loss": float("inf"), "val_score": 0.8}],
], ids=["no epoch", "one epoch", "no training loss", "diverged"])  # fmt: skip
def test_short_histories_give_finite_charts(story: Tell, rows: list[dict[str, float]]) -> None:
    drawn = " ".join(re.findall(r"<svg.*?</svg>", render(story(histories={"text": rows})), re.DOTALL))
    assert not re.search(r"\b(nan|inf)\b", drawn, re.IGNORECASE)


def test_a_member_without_a_measurement_before_fine_tuning_is_still_shown(story: Tell) -> None:
    partial = story().evaluation.model_copy(update={"before": {}, "fine_tuning_gain": {}})
    assert numbers.DASH in Page(render(story(evaluation=partial, histories={}))).texts


@pytest.mark.parametrize(("value", "shown"), [
    (None, "—"), (float("nan"), "—"), (181_234_567.0, "181,234,567"), (4.8e-7, "4.8e-07"), (-0.25, "−0.25"),
])  # fmt: skip
def test_numbers_of_unknown_kind_are_readable(value: float | None, shown: str) -> None:
    assert numbers.plain(value) == shown


@pytest.mark.parametrize(("low", "high"), [(0.61, 0.94), (0.0, 0.0), (1e-9, 2e-9), (3.0, 70_000.0)])
def test_ticks_enclose_the_data(low: float, high: float) -> None:
    marks = svg.ticks(low, high)
    assert marks[0] <= low <= high <= marks[-1]
    assert 2 <= len(marks) <= 8


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="needs chromium or google-chrome on the PATH")
@pytest.mark.parametrize("width", [390, 1280])
def test_only_tables_scroll_sideways(story: Tell, width: int, tmp_path: Path) -> None:
    dumped = measure_in_browser(render(story([*HOSTILE, *(f"class {n}" for n in range(20))])), width, tmp_path)
    measured = re.search(r'data-page="(\d+)" data-tables="(\d+)"', dumped)
    assert measured, dumped[-500:]
    assert int(measured[1]) == width
    if width == 390:
        assert int(measured[2]) > 0


def measure_in_browser(page: str, width: int, folder: Path) -> str:
    """Return a host page that notes how wide the page is in a frame, and how many containers scroll.

    A frame, because headless Chromium makes no window narrower than 500 px.
    """
    probe = folder / "probe.html"
    probe.write_text(
        f"""<!doctype html><meta charset="utf-8"><body>
        <iframe style="border:0;width:{width}px;height:2000px" srcdoc="{html.escape(page)}"></iframe><script>
        const frame = document.querySelector("iframe");
        frame.onload = () => {{
          const inner = frame.contentDocument, scrolls = [...inner.querySelectorAll(".scroll")];
          document.body.dataset.page = inner.documentElement.scrollWidth;
          document.body.dataset.tables = scrolls.filter((one) => one.scrollWidth > one.clientWidth).length;
        }};</script>""",
        encoding="utf-8",
    )
    return browse(probe, folder, "--dump-dom")


def browse(page: Path, folder: Path, *flags: str) -> str:
    """Open a page in a headless browser; return what it prints."""
    common = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
              "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
              f"--user-data-dir={folder / 'profile'}"]  # fmt: skip
    assert BROWSER
    command = [BROWSER, *common, *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="needs chromium or google-chrome on the PATH")
@pytest.mark.parametrize(
    ("scheme", "background", "accent"),
    [("light", (251, 251, 250), (31, 95, 191)), ("dark", (16, 19, 23), (132, 179, 247))],
)
def test_a_reader_sees_it_in_the_colours_of_the_system(
    scheme: str, background: tuple[int, ...], accent: tuple[int, ...], story: Tell, tmp_path: Path
) -> None:
    (tmp_path / "report.html").write_text(render(story()), encoding="utf-8")
    setting = f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"
    shot = tmp_path / "shot.png"
    browse(tmp_path / "report.html", tmp_path, setting, "--window-size=1280,4000", f"--screenshot={shot}")
    with Image.open(shot) as picture:
        colours = {colour: count for count, colour in picture.convert("RGB").getcolors(2**24) or []}
    assert max(colours, key=lambda colour: colours[colour]) == background
    assert colours.get(accent, 0) > 100  # links and charts


def test_labels_that_begin_alike_stay_apart_when_cut() -> None:
    labels = ["Content-Container(e1,e2)", "Content-Container(e2,e1)", "Other"]
    names = svg.shorten_all(labels, 17)
    assert len(set(names)) == 3
    assert all(svg.columns(name) <= 17 for name in names)
    assert names[2] == "Other"


def test_old_rows_and_new_ones_are_told_apart_label_by_label(story: Callable[..., Story]) -> None:
    forgetting = Forgetting(
        champion="v1.4.0", metric="accuracy",
        overall={
            "old": Versus(rows=200, champion=0.81, challenger=0.79),
            "new": Versus(rows=40, champion=0.5, challenger=0.7),
        },
        recall={"old": {"cat": Versus(rows=90, champion=0.9, challenger=0.6)}, "new": {}},
    )  # fmt: skip
    page = render(dataclasses.replace(story(["cat", "dog"]), forgetting=forgetting))
    for cell in ("old rows, accuracy", "new rows, accuracy", "old rows, recall of cat", "Champion v1.4.0", "−0.300"):
        assert cell in page
    assert "no champion that could be asked" in render(story(["cat", "dog"]))


def test_a_student_stands_beside_its_ensemble_with_what_it_loses_and_gains(story: Callable[..., Story]) -> None:
    plain = story(["cat", "dog"])
    beside = Beside(system="student", model_bytes=12_000_000, batches=plain.benchmark.batches)
    taught = dataclasses.replace(
        plain,
        evaluation=plain.evaluation.model_copy(
            update={"student": plain.evaluation.ensemble, "student_gain": plain.evaluation.fusion_gain}
        ),
        benchmark=plain.benchmark.model_copy(update={"beside": beside}),
    )
    for words in ("The student and the ensemble that it learnt from", "12.0 MB"):
        assert words in render(taught)
        assert words not in render(plain)


def test_the_tiles_are_of_what_is_exported_and_say_which_system_it_is(story: Callable[..., Story]) -> None:
    plain = story(["cat", "dog"])
    student = {name: Estimate(value=0.617, low=0.6, high=0.63) for name in plain.evaluation.ensemble}
    loss = {name: Estimate(value=-0.254, low=-0.3, high=-0.2) for name in student}
    beside = Beside(system="ensemble", model_bytes=12_000_000, batches=plain.benchmark.batches)
    small = dataclasses.replace(
        plain,
        evaluation=plain.evaluation.model_copy(update={"student": student, "student_gain": loss}),
        benchmark=plain.benchmark.model_copy(update={"beside": beside}),
    )
    assert [(tile.name, tile.value) for tile in tiles(plain)[:2]] == [
        ("Ensemble accuracy", "0.871"), ("Fusion gain", "+0.081")
    ]  # fmt: skip
    assert [(tile.name, tile.value) for tile in tiles(small)[:2]] == [
        ("Student accuracy", "0.617"), ("Student against ensemble", "−0.254")
    ]  # fmt: skip
    assert "not of the student, which the bundle holds" in render(small)


def test_members_that_may_start_warm_say_where_their_weights_come_from(story: Callable[..., Story]) -> None:
    origin = Origin(version="v1.4.0", why="goes on from champion v1.4.0", old_rows=900, replayed=180, new_rows=31)
    page = render(dataclasses.replace(story(["cat", "dog"]), origins={"text": origin}))
    for cell in ("Where training began", "goes on from champion v1.4.0", "180 of 900"):
        assert cell in page


def test_what_flipped_is_shown_with_both_answers_its_text_and_its_picture(story: Tell) -> None:
    page = Page(render(story()))
    cases = [attributes for tag, attributes in page.tags if tag == "img"]
    assert all((attributes["src"] or "").startswith("data:image/webp;base64,") for attributes in cases)
    assert len(cases) == 3  # e1 and e3 flipped, e3 is explained; e2 has no picture
    assert {"travel, 0.740", "activities, 0.610", "a late bus"} <= set(page.texts)
    assert "Wrong before, right now: 9" in page.texts
    assert "The 2 that are answered most confidently now." in page.texts


def test_rows_that_are_not_at_hand_are_left_out(story: Tell) -> None:
    page = Page(render(story(rows={})))
    assert "img" not in {tag for tag, _ in page.tags}
    assert page.texts.count("There are none to show.") == 3


def test_a_run_without_champion_and_explanation_says_so(story: Tell) -> None:
    page = Page(render(story(against=None, explanation=None, rows={})))
    assert "Nothing was explained." in page.texts
    assert page.texts.count("There is no champion that could be asked about the same rows.") == 2


def test_words_and_cells_are_shaded_by_what_they_speak_for(story: Tell) -> None:
    page = Page(render(story()))
    marks = [(attributes["class"], attributes["style"]) for tag, attributes in page.tags if tag == "mark"][2:]
    assert marks == [("for", "--share: 1.00"), ("against", "--share: 0.29")]
    cells = [attributes for tag, attributes in page.tags if tag == "rect" and attributes["class"] in ("for", "against")]
    assert [(cell["class"], cell["x"], cell["y"]) for cell in cells] == [
        ("for", "0", "0"), ("against", "1", "0"), ("for", "1", "1"),
    ]  # fmt: skip
    assert {"0.200 by chance, text +0.600, image +0.100"} <= set(page.texts)


def test_long_texts_are_cut_and_hostile_ones_escaped(story: Tell) -> None:
    long = {"id": "e2", "text": "<b>" + "word " * 500, "image": None}
    page = Page(render(story(rows={"e2": long})))
    (shown,) = [text for text in page.texts if text.startswith("<b>word")]
    assert len(shown) == 401
    assert shown.endswith("…")
    assert "b" not in {tag for tag, _ in page.tags}


def test_slices_stand_beside_the_champion_s(story: Tell) -> None:
    told = story()
    (table,) = tables.slices(told.evaluation, "ensemble", told.against)
    assert [name for name, _ in table.columns][-3:] == ["Champion v1.1.0", "Gain", "95 % interval"]
    assert table.rows[0][:3] == ["activities", "40", "0.800"]
    (alone,) = tables.slices(told.evaluation, "ensemble", None)
    assert len(alone.columns) == 4
    one = told.evaluation.model_copy(update={"slices": {"source": {"x": told.evaluation.slices["label"]["animals"]}}})
    assert tables.slices(one, "ensemble", None) == []


def test_the_greatest_losses_come_first(story: Tell) -> None:
    table = tables.per_class(story().against)  # type: ignore[arg-type]
    assert [row[0] for row in table.rows][:2] == ["activities", "animals"]
    assert table.rows[0][-1] == "−0.050"
