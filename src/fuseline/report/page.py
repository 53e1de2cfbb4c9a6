"""Render a run's evidence as one HTML file without scripts and without anything fetched."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fuseline.records import (
    Against,
    Benchmark,
    DataManifest,
    Estimate,
    Evaluation,
    Explanation,
    Forgetting,
    Leakage,
    Origin,
    Parity,
    Preparation,
    Rehearsal,
    Validation,
    Verdict,
)
from fuseline.report import cases, charts, exported, heat, leaks, numbers, speed, tables
from fuseline.report.cases import Row


@dataclass(frozen=True)
class Story:
    """Everything that the page tells."""

    name: str
    version: str | None
    """The version the bundle got; None if it was refused."""
    run: str
    created: str
    """ISO time, given by the caller: a page is a pure function of its story."""
    verdict: Verdict
    evaluation: Evaluation
    benchmark: Benchmark
    parity: Parity
    rehearsal: Rehearsal
    manifest: DataManifest
    validation: Validation
    preparation: Preparation
    leakage: Leakage
    histories: dict[str, list[dict[str, float]]]
    """Per member one row an epoch: epoch, train_loss, val_loss, val_score, which is in the headline metric."""
    lineage: dict[str, str]
    """Label to value: revisions, parameters, versions."""
    forgetting: Forgetting | None = None
    """None where there is no champion to compare with."""
    against: Against | None = None
    """None where there is no champion that can be asked the same."""
    explanation: Explanation | None = None
    """None where nothing was explained."""
    rows: Mapping[str, Row] = field(default_factory=dict)
    """Prepared rows by id: those that the page shows of flips and errors."""
    origins: Mapping[str, Origin] = field(default_factory=dict)
    """Where the members that may start warm come from."""


@dataclass(frozen=True)
class Tile:
    """A key number with what is needed to read it."""

    name: str
    value: str
    note: str
    remark: str = ""


def render(story: Story) -> str:
    """Return the page as a whole HTML document."""
    template = environment().get_template("page.html.j2")
    seen = story.explanation.seen if story.explanation else None
    return template.render(
        story=story,
        sentence=explain(story),
        tiles=tiles(story),
        forest=_forest(story.evaluation),
        curves={name: charts.learning_curve(name, rows) for name, rows in story.histories.items()},
        heat=_heat(story.evaluation),
        conditions=speed.conditions(story.benchmark),
        speed=speed,
        parity=exported.facts(story.parity),
        variants=exported.variants(story.parity),
        rehearsal=_rehearsal(story.rehearsal),
        better=cases.flipped(story.against.better.shown, story.rows, seen) if story.against else [],
        worse=cases.flipped(story.against.worse.shown, story.rows, seen) if story.against else [],
        errors=cases.explained(story.explanation.errors, story.rows, seen) if story.explanation else [],
        charts=charts,
        headline=numbers.name(story.evaluation.headline),
        capitalize=capitalize,
        leaks=leaks,
        numbers=numbers,
        tables=tables,
    )


def capitalize(words: str) -> str:
    """Begin with a capital letter, and leave the others as they are."""
    return words[:1].upper() + words[1:]


@functools.cache
def environment() -> Environment:
    """Return the templates' environment: everything is escaped, and nothing may be undefined."""
    return Environment(
        loader=PackageLoader("fuseline.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def explain(story: Story) -> str:
    """Say in one sentence what was decided and what follows from it."""
    verdict = story.verdict
    count, failed = len(verdict.rules), [rule.name for rule in verdict.rules if not rule.passed]
    if not verdict.blessed:
        stays = f"champion {verdict.champion} stays" if verdict.champion else "there is still no champion"
        return f"{len(failed)} of {count} rule{'' if count == 1 else 's'} failed ({', '.join(failed)}); {stays}."
    if verdict.accepted:
        return (
            f"{story.name} {story.version} takes over from champion {verdict.champion}, with which it cannot be "
            f"compared: {verdict.accepted.by} accepted that."
        )
    passed = f"{({1: 'The only rule', 2: 'Both rules'}).get(count, f'All {count} rules')} passed"
    if story.version is None:
        return f"{passed}; the bundle has not been published under a version."
    follows = f"takes over from champion {verdict.champion}" if verdict.champion else "is the first champion"
    return f"{passed}; {story.name} {story.version} {follows}."


def tiles(story: Story) -> list[Tile]:
    """Choose the numbers that a reader wants first."""
    evaluation = story.evaluation
    system = story.benchmark.system
    reached = evaluation.of(system)[evaluation.headline]
    span = f"{100 * evaluation.confidence:g} % interval"
    chosen = [
        Tile(
            f"{capitalize(system)} {numbers.name(evaluation.headline)}",
            numbers.metric(reached.value),
            f"{span} {numbers.interval(reached)}",
            f"on {evaluation.rows:,} test rows",
        ),
        _fusion_tile(evaluation, span) if system == "ensemble" else _student_tile(evaluation, span),
    ]
    chosen += [
        Tile(
            "Gain over champion",
            numbers.gain(rule.gain.value),
            f"{span} {numbers.interval(rule.gain, signed=True)}",
            f"in {numbers.name(rule.metric.rpartition('.')[2])}, over {story.verdict.champion}",
        )
        for rule in story.verdict.rules
        if rule.gain is not None
    ]
    return chosen + _speed_tiles(story.benchmark)


def _fusion_tile(evaluation: Evaluation, span: str) -> Tile:
    over = f"over {evaluation.best_single}, the best single-modality member"
    return _gain_tile("Fusion gain", evaluation.fusion_gain[evaluation.headline], span, over)


def _student_tile(evaluation: Evaluation, span: str) -> Tile:
    assert evaluation.student_gain is not None
    to = "to the ensemble that it learnt from"
    return _gain_tile("Student against ensemble", evaluation.student_gain[evaluation.headline], span, to)


def _gain_tile(label: str, gain: Estimate, span: str, against: str) -> Tile:
    interval = f"{span} {numbers.interval(gain, signed=True)}"
    return Tile(label, numbers.gain(gain.value), interval, f"{against}; {judge_gain(gain)}")


def judge_gain(gain: Estimate) -> str:
    """Say on which side of zero the interval lies."""
    if gain.low is None or gain.high is None:
        return "all rows are of one group"
    if gain.low > 0:
        return "the interval is above zero"
    return "the interval is below zero" if gain.high < 0 else "the interval includes zero"


def _speed_tiles(benchmark: Benchmark) -> list[Tile]:
    batches = charts.by_size(benchmark)
    if not batches:
        return []
    first, best = batches[0], max(batches, key=lambda batch: batch.examples_per_second)
    return [
        Tile(
            "Latency, p50",
            numbers.milliseconds(first.p50_ms),
            f"batch {first.batch_size}, p95 {numbers.milliseconds(first.p95_ms)}",
            benchmark.device,
        ),
        Tile(
            "Examples per second",
            numbers.plain(round(best.examples_per_second, 1)),
            f"batch {best.batch_size}",
            benchmark.device,
        ),
    ]


def _forest(evaluation: Evaluation) -> Markup:
    metric = evaluation.headline
    now = {name: metrics[metric] for name, metrics in evaluation.members.items()}
    before = {name: metrics[metric] for name, metrics in evaluation.before.items()}
    groups = {
        "Ensemble": [charts.Dot("all members", evaluation.ensemble[metric])],
        "Members": [charts.Dot(name, estimate, before.get(name)) for name, estimate in now.items()],
        "Ensemble, given only": [charts.Dot(name, row[metric]) for name, row in evaluation.patterns.items()],
    }
    title = f"{capitalize(numbers.name(metric))} of the ensemble, its members and modality patterns"
    return charts.forest({name: dots for name, dots in groups.items() if dots}, groups["Ensemble"][0].now.value, title)


def _heat(evaluation: Evaluation) -> Markup | None:
    if len(evaluation.labels) > heat.MAX_CLASSES:
        return None
    return heat.confusion(evaluation.labels, evaluation.confusion)


def _rehearsal(rehearsal: Rehearsal) -> Mapping[str, str]:
    patterns = ", ".join(f"{name} {count}" for name, count in rehearsal.patterns.items())
    told = {"Golden rows": f"{rehearsal.rows:,} ({patterns})", "Answered as here": f"{100 * rehearsal.agreement:.2f} %"}
    if rehearsal.problem is not None:
        return told | {"Problem": rehearsal.problem}
    difference, first, evaluated = (
        rehearsal.max_difference, rehearsal.first_answer_seconds, rehearsal.evaluation_agreement
    )  # fmt: skip
    return told | {
        "Largest difference of a probability": "none" if difference is None else f"{difference:.2e}",
        "Label as evaluated": "no row" if evaluated is None else f"{100 * evaluated:.2f} %",
        "First answer": "none" if first is None else f"{first:.1f} s after the start of Python",
        "Python": rehearsal.python or "unknown",
        "Installed": ", ".join(f"{name} {version}" for name, version in sorted(rehearsal.installed.items())),
    }
