"""Records to tables of strings: what the page shows in rows, in the order in which it shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fuseline.records import (
    Against,
    Benchmark,
    Beside,
    Change,
    ClassRow,
    Estimate,
    Evaluation,
    Explanation,
    Forgetting,
    Metrics,
    Origin,
    Preparation,
    RuleOutcome,
    Slice,
    System,
    Validation,
    Verdict,
    Versus,
)
from fuseline.report import charts, heat, numbers

Kind = Literal["text", "number", "code", "prose", "outcome"]
Column = tuple[str, Kind]

METRICS = {"map": "mAP", "f1": "F1", "precision": "Precision", "recall": "Recall", "accuracy": "Accuracy",
           "macro_f1": "Macro F1", "nll": "NLL ↓", "brier": "Brier ↓", "ece": "ECE ↓"}  # fmt: skip
"""What is shown, in this order, of the metrics that the task has; its headline metric is the first of them."""
SPLITS = ("train", "val", "test")
MOST_PAIRS = 15
MOST_DOUBTS = 20


@dataclass(frozen=True)
class Table:
    """A captioned table; the first column heads its rows."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]


ANSWERS = {"passed": "Passed", "failed": "Failed", "not answered": "Not answered", "incomparable": "Incomparable",
           "too small": "Too small"}  # fmt: skip


def rules(verdict: Verdict) -> Table:
    """List the gate's rules with their outcomes, those of each verdict together."""
    rows = [
        [
            rule.name,
            rule.kind,
            tell_answer(rule),
            numbers.plain(rule.value),
            numbers.interval(rule.interval) if rule.interval else numbers.DASH,
            rule.bound,
            numbers.DASH if rule.rows is None else f"{rule.rows:,}",
            rule.why,
            rule.metric,
        ]
        for rule in sorted(verdict.rules, key=lambda rule: rule.kind)
    ]
    return Table(
        "Rules of the gate",
        (
            ("Rule", "text"),
            ("Verdict", "text"),
            ("Outcome", "outcome"),
            ("Value", "number"),
            ("Interval", "number"),
            ("Bound", "number"),
            ("Rows", "number"),
            ("Why", "prose"),
            ("Metric", "code"),
        ),
        rows,
    )


def tell_answer(rule: RuleOutcome) -> str:
    """Say in a word what became of a rule."""
    return "Accepted" if rule.answer == "incomparable" and rule.passed else ANSWERS[rule.answer]


def rule_slices(rule: RuleOutcome) -> Table:
    """List the slices that a rule was held in, the worst first, those that were too small last."""
    rows = [
        [
            one.slice,
            f"{one.rows:,}",
            ANSWERS[one.answer],
            *_value_and_interval(one.estimate, signed=rule.gain is not None or "champion" in rule.bound),
            numbers.DASH if one.confidence is None else f"{numbers.metric(one.held)} at {100 * one.confidence:.4g} %",
        ]
        for one in sorted(rule.slices, key=lambda one: (one.answer == "too small", one.slice != rule.worst))
    ]
    return Table(
        f"{rule.name}, slice by slice",
        (
            ("Slice", "text"),
            ("Rows", "number"),
            ("Outcome", "outcome"),
            ("Value", "number"),
            ("Interval", "number"),
            ("Held against the bound", "number"),
        ),
        rows,
    )


def fine_tuning(evaluation: Evaluation) -> Table:
    """Set what each member reaches before fine-tuning against that after it."""
    metric = evaluation.headline
    rows = [
        [
            name,
            *_value_and_interval(evaluation.before.get(name, {}).get(metric)),
            *_value_and_interval(after.get(metric)),
            *_value_and_interval(evaluation.fine_tuning_gain.get(name, {}).get(metric), signed=True),
        ]
        for name, after in evaluation.members.items()
    ]
    span = _interval_name(evaluation)
    return Table(
        f"{METRICS[metric]} before and after fine-tuning",
        (
            ("Member", "text"),
            ("Before", "number"),
            (span, "number"),
            ("After", "number"),
            (span, "number"),
            ("Gain", "number"),
            (span, "number"),
        ),
        rows,
    )


def fine_tuned_parts(evaluation: Evaluation) -> list[Table]:
    """Show what fine-tuning changed for each member, class by class, and slice by slice where there are several."""
    found = evaluation.tuning
    classes = {name: tuning.classes for name, tuning in found.items()}
    cuts = {
        by: {name: tuning.slices[by] for name, tuning in found.items()}
        for by in evaluation.slices
        if by != "label" and len(evaluation.slices[by]) > 1
    }
    headline = METRICS[evaluation.headline]
    titles = {"F1 before → after fine-tuning, class by class": ("Class", classes)}
    titles |= {
        f"{headline} before → after fine-tuning, by {by.removeprefix('meta.')}": ("Slice", cut)
        for by, cut in cuts.items()
    }
    return [_changes(title, head, members) for title, (head, members) in titles.items() if members]


def _changes(title: str, head: str, members: Mapping[str, Mapping[str, Change]]) -> Table:
    parts = dict.fromkeys(part for changes in members.values() for part in changes)
    rows = [[part, *(_tell_change(changes.get(part)) for changes in members.values())] for part in parts]
    return Table(title, ((head, "text"), *((name, "number") for name in members)), rows)


def _tell_change(change: Change | None) -> str:
    return numbers.DASH if change is None else f"{numbers.metric(change.before)} → {numbers.metric(change.after)}"


def _value_and_interval(estimate: Estimate | None, signed: bool = False) -> list[str]:
    form = numbers.gain if signed else numbers.metric
    return [form(estimate.value if estimate else None), numbers.interval(estimate, signed)]


def _interval_name(evaluation: Evaluation) -> str:
    return f"{100 * evaluation.confidence:g} % interval"


def systems(evaluation: Evaluation) -> Table:
    """Set the ensemble beside its members, with their weights."""
    rows = [["ensemble", numbers.DASH, *_metric_cells(evaluation, evaluation.ensemble)]]
    rows += [
        [name, numbers.metric(evaluation.weights.get(name)), *_metric_cells(evaluation, metrics)]
        for name, metrics in evaluation.members.items()
    ]
    return Table(
        "The ensemble and its members on the test split",
        (("System", "text"), ("Weight", "number"), *_metric_columns(evaluation)),
        rows,
    )


def reached(evaluation: Evaluation, system: System) -> Table:
    """Set what is published first, and beneath it what it was made from: members, or for a student the ensemble."""
    rest = evaluation.members if system == "ensemble" else {"the ensemble that it learnt from": evaluation.ensemble}
    rows = [[f"{system} (this bundle)", *_metric_cells(evaluation, evaluation.of(system))]]
    rows += [[name, *_metric_cells(evaluation, metrics)] for name, metrics in rest.items()]
    return Table("Reached on the test split", (("System", "text"), *_metric_columns(evaluation)), rows)


def student(evaluation: Evaluation, benchmark: Benchmark) -> Table:
    """Set the student beside the ensemble that it learnt from: what it loses, and what it gains in time and size."""
    assert evaluation.student is not None
    assert evaluation.student_gain is not None
    assert benchmark.beside is not None
    metric, beside = evaluation.headline, benchmark.beside
    published = Beside(system=benchmark.system, model_bytes=benchmark.model_bytes, batches=benchmark.batches)
    sizes = [batch.batch_size for batch in charts.by_size(benchmark)]
    rows = []
    for name, reached, gain in (
        ("ensemble", evaluation.ensemble, None),
        ("student", evaluation.student, evaluation.student_gain[metric]),
    ):
        timed = next(each for each in (published, beside) if each.system == name)
        rows.append([
            name, *_value_and_interval(reached[metric]), *_value_and_interval(gain, signed=True),
            *(numbers.milliseconds(timed.batches[f"batch_{size}"].p50_ms) for size in sizes),
            numbers.size(timed.model_bytes),
        ])  # fmt: skip
    span = _interval_name(evaluation)
    return Table(
        "The student and the ensemble that it learnt from",
        (
            ("System", "text"), (METRICS[metric], "number"), (span, "number"), ("Gain", "number"), (span, "number"),
            *((f"p50, batch {size}", "number") for size in sizes), ("Model size", "number"),
        ),
        rows,
    )  # fmt: skip


def contributions(evaluation: Evaluation) -> Table:
    """Show what the ensemble would lose with each member, and how often members differ."""
    names = list(evaluation.contributions)
    rows = [
        [
            name,
            *_value_and_interval(gain[evaluation.headline], signed=True),
            *_value_and_interval(gain["nll"], signed=True),
            *(numbers.metric(evaluation.disagreement.get(name, {}).get(other)) for other in names),
        ]
        for name, gain in evaluation.contributions.items()
    ]
    span = _interval_name(evaluation)
    return Table(
        "What each member adds: the ensemble against the rest of it, and the share of rows on which two members differ",
        (
            ("Member", "text"),
            (METRICS[evaluation.headline], "number"),
            (span, "number"),
            ("NLL, lower by", "number"),
            (span, "number"),
            *((f"Differs from {name}", "number") for name in names),
        ),
        rows,
    )


def patterns(evaluation: Evaluation) -> Table:
    """Show the ensemble by which modalities it is given."""
    rows = [[name, *_metric_cells(evaluation, metrics)] for name, metrics in evaluation.patterns.items()]
    return Table("The ensemble by available modalities", (("Given", "text"), *_metric_columns(evaluation)), rows)


def robustness(evaluation: Evaluation) -> Table:
    """Show what the ensemble loses on disturbed rows."""
    metric, span = evaluation.headline, _interval_name(evaluation)
    rows = [
        [
            name,
            *_value_and_interval(metrics[metric]),
            *_value_and_interval(evaluation.robustness_gain[name][metric], signed=True),
        ]
        for name, metrics in evaluation.robustness.items()
    ]
    return Table(
        "The ensemble on disturbed test rows",
        (("Rows", "text"), (METRICS[metric], "number"), (span, "number"), ("Difference", "number"), (span, "number")),
        rows,
    )


def slices(evaluation: Evaluation, system: System, against: Against | None) -> list[Table]:
    """Show each cut of the test rows in more than one part, and beside it the champion where there is one."""
    cuts = {by: cut for by, cut in evaluation.slices.items() if len(cut) > 1}
    return [_slice(by, cut, evaluation, system, against) for by, cut in cuts.items()]


def _slice(by: str, cut: Mapping[str, Slice], evaluation: Evaluation, system: System, against: Against | None) -> Table:
    metric, span = evaluation.headline, _interval_name(evaluation)
    compared = {} if against is None else against.slices.get(by, {})
    rows = []
    for name, part in cut.items():
        reached, versus = part.student if system == "student" else part.ensemble, compared.get(name)
        champion = [] if not compared else [numbers.metric(versus.champion.get(metric) if versus else None)]
        gain = [] if not compared else _value_and_interval(versus.gain.get(metric) if versus else None, signed=True)
        rows.append([name, f"{part.rows:,}", *_value_and_interval((reached or {}).get(metric)), *champion, *gain])
    columns: list[Column] = [("Slice", "text"), ("Rows", "number"), (METRICS[metric], "number"), (span, "number")]
    if compared and against is not None:
        columns += [(f"Champion {against.champion}", "number"), ("Gain", "number"), (span, "number")]
    return Table(f"By {by.removeprefix('meta.')}", columns, rows)


def parts(evaluation: Evaluation, system: System, against: Against | None = None) -> list[Table]:
    """List the tables of classes, of patterns of modalities, of rows that were changed, and of slices.

    Args:
        system: what is published; of a student the slices alone are known.
        against: the champion, beside the slices.
    """
    cuts = slices(evaluation, system, against)
    if system == "student":
        return cuts
    changed = [robustness(evaluation)] if evaluation.robustness else []
    return [classes(evaluation.per_class, evaluation.averages), patterns(evaluation), *changed, *cuts]


def overall(against: Against) -> Table:
    """Set champion and challenger side by side, metric by metric."""
    found, span = against.overall, f"{100 * against.confidence:g} % interval"
    rows = [
        [
            METRICS[key],
            numbers.metric(found.champion.get(key)),
            numbers.metric(found.challenger.get(key)),
            *_value_and_interval(found.gain.get(key), signed=True),
        ]
        for key in METRICS
        if key in found.challenger
    ]
    return Table(
        f"Champion {against.champion} and challenger on the same {found.rows:,} test rows",
        (
            ("Metric", "text"),
            ("Champion", "number"),
            ("Challenger", "number"),
            ("Better by", "number"),
            (span, "number"),
        ),
        rows,
    )


def per_class(against: Against) -> Table:
    """Set champion and challenger side by side, class by class, those that lost most first."""
    rows = sorted(
        ((label, found["f1"]) for label, found in against.per_class.items() if "f1" in found),
        key=lambda row: row[1].challenger - row[1].champion,
    )
    return Table(
        "F1 class by class, the greatest losses first",
        (
            ("Class", "text"), ("Rows", "number"), (f"Champion {against.champion}", "number"), ("Now", "number"),
            ("Difference", "number"),
        ),
        [[label, *_versus(found)] for label, found in rows],
    )  # fmt: skip


def shares(found: Explanation, confidence: float) -> Table:
    """Show what each modality adds, from nothing in sight to all."""
    span = f"{100 * confidence:g} % interval"
    rows = [
        [
            "nothing in sight",
            numbers.metric(found.chance["accuracy"]),
            numbers.DASH,
            numbers.metric(found.chance["nll"]),
            numbers.DASH,
        ]
    ]
    for name, metrics in found.modalities.items():
        cells = [_value_and_interval(metrics[key], signed=True) for key in ("accuracy", "nll")]
        rows.append([name, *cells[0], *cells[1]])
    return Table(
        "What each modality adds, averaged over all orders in which they could be shown",
        (("Shown", "text"), ("Accuracy", "number"), (span, "number"), ("NLL ↓", "number"), (span, "number")),
        rows,
    )


def shares_by_class(found: Explanation) -> Table:
    """Show what each modality adds to the probability of the true class."""
    names = list(found.modalities)
    rows = [[label, *(numbers.gain(shares[name]) for name in names)] for label, shares in found.by_class.items()]
    return Table(
        "What each modality adds to the probability of the true class",
        (("Class", "text"), *((name, "number") for name in names)),
        rows,
    )


def doubts(found: Explanation) -> Table:
    """List the labels that are most in doubt."""
    rows = [
        [doubt.id, doubt.split, doubt.label, _tell(doubt.answer), numbers.metric(doubt.probability)]
        for doubt in found.doubts[:MOST_DOUBTS]
    ]
    return Table(
        "Labels that may be wrong, the most doubtful first",
        (
            ("Example", "text"),
            ("Split", "text"),
            ("Label", "text"),
            ("The ensemble says", "text"),
            ("Sure by", "number"),
        ),
        rows,
    )


def _tell(answer: Mapping[str, Any]) -> str:
    if "label" in answer:
        return str(answer["label"])
    if "labels" in answer:
        return ", ".join(answer["labels"]) or numbers.DASH
    return ", ".join(f"{entity['text']} ({entity['label']})" for entity in answer["entities"]) or numbers.DASH


def forgetting(found: Forgetting) -> Table:
    """Set champion and challenger side by side on old rows and on new ones, label by label."""
    rows = []
    for age, whole in found.overall.items():
        rows.append([f"{age} rows, {numbers.name(found.metric)}", *_versus(whole)])
        rows += [[f"{age} rows, recall of {label}", *_versus(each)] for label, each in found.recall[age].items()]
    return Table(
        f"What champion {found.champion} knew, and what came since",
        (
            ("On", "text"),
            ("Rows", "number"),
            (f"Champion {found.champion}", "number"),
            ("Now", "number"),
            ("Difference", "number"),
        ),
        rows,
    )


def _versus(found: Versus) -> list[str]:
    values = found.champion, found.challenger
    return [f"{found.rows:,}", *map(numbers.metric, values), numbers.gain(found.challenger - found.champion)]


def origins(found: Mapping[str, Origin]) -> Table:
    """Say of each member that may start warm where its weights come from."""
    rows = [
        [name, origin.why, f"{origin.new_rows:,}", f"{origin.replayed:,} of {origin.old_rows:,}"]
        for name, origin in found.items()
    ]
    return Table(
        "Where training began",
        (("Member", "text"), ("Weights", "prose"), ("New rows", "number"), ("Others in each epoch", "number")),
        rows,
    )


def _metric_columns(evaluation: Evaluation) -> list[Column]:
    headline, *others = (METRICS[key] for key in shown(evaluation))
    return [(headline, "number"), (_interval_name(evaluation), "number"), *((name, "number") for name in others)]


def _metric_cells(evaluation: Evaluation, metrics: Metrics) -> list[str]:
    headline, *others = (metrics.get(key) for key in shown(evaluation))
    return [*_value_and_interval(headline), *(numbers.metric(other.value if other else None) for other in others)]


def shown(evaluation: Evaluation) -> list[str]:
    """Return the metrics that are shown, the headline first."""
    return [key for key in METRICS if key in evaluation.ensemble]


def classes(rows: Sequence[ClassRow], averages: Sequence[ClassRow] = ()) -> Table:
    """List the classes, weakest first, then their averages."""
    lines = [
        [row.label, *map(numbers.metric, (row.precision, row.recall, row.f1)), f"{row.support:,}"]
        for row in [*sorted(rows, key=lambda row: row.f1), *averages]
    ]
    return Table(
        "Classes by F1, weakest first",
        (("Class", "text"), ("Precision", "number"), ("Recall", "number"), ("F1", "number"), ("Test rows", "number")),
        lines,
    )


def confused(evaluation: Evaluation) -> Table:
    """List the most frequent confusions."""
    pairs = heat.confused_pairs(evaluation.labels, evaluation.confusion, MOST_PAIRS)
    rows = [[true, predicted, f"{count:,}", numbers.share(count, total)] for true, predicted, count, total in pairs]
    return Table(
        "Most frequent confusions",
        (("True", "text"), ("Predicted", "text"), ("Rows", "number"), ("Of the true label", "number")),
        rows,
    )


def splits(preparation: Preparation) -> Table:
    """Count rows per label and split."""
    names = sorted(preparation.rows, key=(*SPLITS, *preparation.rows).index)
    labels = sorted({label for counts in preparation.labels.values() for label in counts})
    rows = [["All labels", *(f"{preparation.rows[name]:,}" for name in names)]]
    rows += [[label, *(f"{preparation.labels.get(name, {}).get(label, 0):,}" for name in names)] for label in labels]
    columns: list[Column] = [("Label", "text"), *((name, "number") for name in names)]
    return Table("Rows per split and label", columns, rows)


def contract(validation: Validation) -> Table:
    """List the data contract's rules."""
    rows = [
        [rule.rule, "Met" if rule.passed else "Broken", f"{rule.failed_rows:,}"] for rule in validation.expectations
    ]
    return Table(
        "Rules of the data contract", (("Rule", "text"), ("Outcome", "outcome"), ("Rows that broke it", "number")), rows
    )
