"""Measure the ensemble on the test split: beside its members, and after against before fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from fuseline.config import Encoders, Modality, Params
from fuseline.data.shards import write_table
from fuseline.evaluation import plots, slices
from fuseline.evaluation.calibration import calibrate
from fuseline.evaluation.metrics import Scored, best_of, disagreement, estimate, estimate_gain, headline
from fuseline.evaluation.tuning import find_changes
from fuseline.models.combine import number_patterns, patterns_of
from fuseline.models.member import FusionModel
from fuseline.progress import Progress, say
from fuseline.records import Combination, Decoding, Evaluation, Metrics, Slice, System, write_json
from fuseline.stages import entry
from fuseline.tasks.base import Task, Truth
from fuseline.training.checkpoints import build_combiner, load_ensemble, load_readers, read_combination
from fuseline.training.combine import leave_out
from fuseline.training.disturb import build_disturbances
from fuseline.training.examples import Collator, Examples
from fuseline.training.features import encode, encode_words
from fuseline.training.modalities import build_modalities
from fuseline.training.predict import count_unseen, predict_ensemble, predict_views
from fuseline.training.pretrained import build_member
from fuseline.training.probe import fit_probe, probe_probs
from fuseline.training.trainer import set_up

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Predicted:
    """The test rows and what was predicted for their units, probabilities [U, C], all in one order."""

    ids: list[str]
    groups_N: NDArray[np.str_]
    shards: list[str]
    texts: list[str | None]
    targets: list[str]
    slices: dict[str, slices.Names]
    """By each cut of the config, the slices that each row is in."""
    truth: Truth
    unseen: int
    """Words, where these are scored, that no member saw."""
    present: dict[str, Mask]
    """Per modality: which rows have it."""
    ensemble_UC: Floats
    members: dict[str, Floats]
    before: dict[str, Floats]
    """Per member: a linear head on its encoders as they were loaded, before any fine-tuning."""
    student_UC: Floats | None
    """None where there is none."""
    patterns: dict[str, Floats]
    """By modalities, joined by +: the ensemble when it is given nothing else."""
    disturbed: dict[str, Floats]
    """Per kind of disturbance: the ensemble on rows that were changed by it."""


def main(params: Params) -> None:
    """Write build/evaluate: evaluation and metrics .json, predictions and patterns .parquet, plots/."""
    set_up(params.train)
    combination = read_combination(entry.COMBINE)
    predicted = predict(params, combination)
    evaluation = measure(params, combination, predicted)
    folder = entry.fresh(entry.EVALUATE)
    write_table(to_table(predicted, entry.task_of(params).unit != "row"), folder / "predictions.parquet")
    by_pattern = {name: by_row(predicted, probs_UC) for name, probs_UC in predicted.patterns.items()}
    write_table(pa.table({"id": predicted.ids, **by_pattern}), entry.PATTERNS)
    evaluation.write(folder / "evaluation.json")
    write_json(folder / "metrics.json", headline(evaluation))
    for name, (task, probs_UC) in systems_of(params, combination, predicted).items():
        answered = Scored.of(task, probs_UC, predicted.truth)
        plots.write_system(folder / "plots", name, answered, evaluation.calibration[name])
    members = params.members
    trained = [entry.TRAIN / members.kind(name) / name for name in members.all()]  # folders of former ones stay
    taught = entry.DISTILL.glob("*/*") if params.distill is not None else ()
    plots.write_learning(folder / "plots", [one / "history.json" for one in (*trained, *taught)])
    metric = evaluation.headline
    reached, gain = evaluation.ensemble[metric], evaluation.fusion_gain[metric]
    say(
        f"evaluate: the ensemble's {metric} {reached.value:.3f}{reached.brackets('.3f')}, "
        f"fusion gain {gain.value:+.3f} over {evaluation.best_single}"
    )
    if evaluation.student is not None:
        say(f"evaluate: the student's {metric} {evaluation.student[metric].value:.3f}")
    if evaluation.unseen:
        say(
            f"evaluate: {evaluation.unseen:,} of {len(predicted.truth.labels_U):,} words were cut off and count as "
            "outside of entities; raise encoders.text.max_length"
        )


def predict(params: Params, combination: Combination) -> Predicted:
    """Run ensemble and members over the test rows that have any modality of theirs."""
    task, ensemble = entry.task_of(params), load_ensemble(entry.TRAIN, combination)
    used = params.members.modalities()
    collate = Collator(load_readers(entry.TRAIN, ensemble), len(task.classes), words=task.words)
    modalities = build_modalities(params.encoders, used, task.words, ensemble.layout)
    read = partial(Examples, modalities=modalities, only=task.wanted(used))
    test = read(entry.PREPARE / "test")
    parts = [name.split("+") for name in patterns_of(used)[1:-1]]
    parts = [shown for shown in parts if set(shown) & set(task.wanted(used))]
    disturbances = {name: build_disturbances(how, used) for name, how in params.evaluate.robustness.items()}
    disturbances = {name: changes for name, changes in disturbances.items() if changes}
    views = predict_views(ensemble, test, collate, parts, list(disturbances.values()))
    texts, targets, settings = test.column("text"), test.column("target"), params.evaluate
    told = task, targets, test.present(), texts, test.column("source"), test.column("meta")
    return Predicted(
        ids=list(test.column("id")),
        groups_N=np.array(list(test.column("group"))),
        shards=test.files.tolist(),
        texts=texts,
        targets=targets,
        slices={by: slices.limit(slices.cut(by, *told), settings.slice_values) for by in settings.slices},
        truth=task.find_truth(test.column("label"), targets, texts),
        unseen=count_unseen(test, collate) if task.words else 0,
        present=test.present(),
        ensemble_UC=views.whole_UC,
        members={name: views.members_UMC[:, index] for index, name in enumerate(combination.weights)},
        student_UC=None if params.distill is None else _predict_student(params, params.distill.encoders, used),
        before=_predict_before(params, read(entry.PREPARE / "train"), test, collate),
        patterns=dict(zip(map("+".join, parts), views.patterns, strict=True)),
        disturbed=dict(zip(disturbances, views.changed, strict=True)),
    )


def _predict_student(params: Params, encoders: Encoders | None, used: Sequence[Modality]) -> Floats:
    """Run the student over the same test rows."""
    task, student = entry.task_of(params), load_ensemble(entry.DISTILL, read_combination(entry.DISTILL))
    modalities = build_modalities(encoders or params.encoders, used, task.words, student.layout)
    test = Examples(entry.PREPARE / "test", modalities, only=task.wanted(used))
    collate = Collator(load_readers(entry.DISTILL, student), len(task.classes), words=task.words)
    return predict_ensemble(student, test, collate)[0]


def _predict_before(params: Params, train: Examples, test: Examples, collate: Collator) -> dict[str, Floats]:
    task, used, settings = entry.task_of(params), params.members.modalities(), params.evaluate
    train.thin(max(1, settings.probe_rows * len(train) // len(train.labels)) if task.words else settings.probe_rows)
    features, progress = {}, Progress("evaluate before fine-tuning", len(used))
    for done, modality in enumerate(used, start=1):
        model = build_encoders(params, task, modality)
        features[modality] = [_features(model, modality, split, collate) for split in (train, test)]
        progress.at(done, modality)
    before = {}
    for name, member in params.members.all().items():
        seen_ND, unseen_ND = (np.hstack([features[m][part] for m in member.modalities]) for part in (0, 1))
        fit = partial(fit_probe, penalty=settings.probe_penalty, steps=settings.probe_steps)
        if task.unit == "label":
            labels_NL = train.labels.reshape(len(train), -1)
            heads = [fit(seen_ND, labels_N, collate.classes, single=True) for labels_N in labels_NL.T]
            probs_NLC = np.stack([probe_probs(unseen_ND, *head) for head in heads], axis=1)
            before[name] = probs_NLC.reshape(-1, collate.classes)
        else:
            before[name] = probe_probs(unseen_ND, *fit(seen_ND, train.labels, collate.classes))
    return before


def _features(model: FusionModel, modality: str, examples: Examples, collate: Collator) -> Floats:
    """Return what the encoder makes of each unit [U, D]; words have their own text, and the rest of their row."""
    if not model.config.words:
        return encode(model, modality, examples, collate).whole()
    if modality == "text":
        return encode_words(model, examples, collate)
    counts_N = [len(tags) for tags in examples.column("label")]
    return np.repeat(encode(model, modality, examples, collate).whole(), counts_N, axis=0)


def build_encoders(params: Params, task: Task, modality: str) -> FusionModel:
    """Build a member on one modality alone, its encoder as loaded; the rest of its recipe is of no account."""
    expert = next(iter(params.members.experts.values()))
    named = params.members.experts_on(modality)
    recipe = params.members.experts[named[0]] if named else expert.model_copy(update={"modality": modality})
    return build_member(recipe, params.encoders, task, params.train.seed)


def by_row(predicted: Predicted, probs_UC: Floats) -> list[Floats]:
    """Put the probabilities of a row's units in one list."""
    return [probs.ravel() for probs in predicted.truth.by_row(probs_UC)]


def to_table(predicted: Predicted, several: bool) -> pa.Table:
    """Keep what the judge and the parity of the export go by: the probabilities of a row's units in one list.

    Args:
        several: whether a row has several units.
    """
    truth = predicted.truth
    columns = {
        "id": predicted.ids,
        "group": list(predicted.groups_N),
        "shard": predicted.shards,
        "label": truth.by_row(truth.labels_U) if several else truth.labels_U,
        "probabilities": by_row(predicted, predicted.ensemble_UC),
    }
    columns |= {
        f"{slices.COLUMN}{by}": pa.array(names, pa.list_(pa.string())) for by, names in predicted.slices.items()
    }
    if predicted.student_UC is not None:
        columns["student"] = [probs.ravel() for probs in truth.by_row(predicted.student_UC)]
    return pa.table(columns | ({"text": predicted.texts, "target": predicted.targets} if several else {}))


def systems_of(params: Params, combination: Combination, predicted: Predicted) -> dict[System, tuple[Task, Floats]]:
    """Return what may be exported: the problem as each answers it, and what it said [U, C]."""
    plain = entry.task_of(params)
    found: dict[System, tuple[Task, Floats]] = {
        "ensemble": (plain.decided(combination.decoding), predicted.ensemble_UC)
    }
    if predicted.student_UC is not None:
        found["student"] = plain.decided(read_combination(entry.DISTILL).decoding), predicted.student_UC
    return found


def measure(params: Params, combination: Combination, predicted: Predicted) -> Evaluation:
    """Measure each system on the rows that have anything it sees; on the others it could only guess."""
    plain, truth, groups_N, settings = entry.task_of(params), predicted.truth, predicted.groups_N, params.evaluate
    answered, everything = systems_of(params, combination, predicted), np.full(len(groups_N), True)
    task, drawn = answered["ensemble"][0], (settings.resamples, settings.confidence)
    student, student_UC = answered.get("student", (plain, None))
    tasks = {name: plain.decided(combination.decodings.get(name, Decoding())) for name in predicted.members}

    def score_on(rows: Mask, probs_UC: Floats, task: Task = task) -> Scored:
        return Scored.of(task, probs_UC[truth.units(rows)], truth.take(rows))

    def estimate_on(rows: Mask, probs_UC: Floats, task: Task = task) -> Metrics:
        return estimate(score_on(rows, probs_UC, task), groups_N[rows], *drawn)

    def gain_on(rows: Mask, after_UC: Floats, before_UC: Floats, task: Task = task, than: Task = task) -> Metrics:
        return estimate_gain(score_on(rows, after_UC, task), score_on(rows, before_UC, than), groups_N[rows], *drawn)

    seen = {
        name: np.any([predicted.present[modality] for modality in task.wanted(member.modalities)], axis=0)
        for name, member in params.members.all().items()
    }
    seen_units = {name: truth.units(rows) for name, rows in seen.items()}
    members = {name: estimate_on(seen[name], probs, tasks[name]) for name, probs in predicted.members.items()}
    best_single = best_of({name: members[name] for name in params.members.experts}, task.headline)
    systems = {name: score_on(everything, probs_UC, than) for name, (than, probs_UC) in answered.items()}
    per_class, averages = task.table(predicted.ensemble_UC, truth)
    names, confused = task.confusion(predicted.ensemble_UC, truth)
    cuts = {by: slices.masks(names) for by, names in predicted.slices.items()}
    return Evaluation(
        headline=task.headline,
        labels=names,
        rows=len(groups_N),
        unseen=predicted.unseen,
        confidence=settings.confidence,
        ensemble=estimate_on(everything, predicted.ensemble_UC),
        members=members,
        before={name: estimate_on(seen[name], probs, plain) for name, probs in predicted.before.items()},
        fine_tuning_gain={
            name: gain_on(rows, predicted.members[name], predicted.before[name], tasks[name], plain)
            for name, rows in seen.items()
        },
        tuning={
            name: find_changes(
                score_on(rows, predicted.before[name], plain),
                score_on(rows, predicted.members[name], tasks[name]),
                {by: {part: mask[rows] for part, mask in cut.items()} for by, cut in cuts.items()},
            )
            for name, rows in seen.items()
        },
        student=None if student_UC is None else estimate_on(everything, student_UC, student),
        calibration={name: calibrate(each.probs_UC, truth.labels_U) for name, each in systems.items()},
        student_gain=None if student_UC is None else gain_on(everything, student_UC, predicted.ensemble_UC, student),
        fusion_gain=gain_on(
            seen[best_single], predicted.ensemble_UC, predicted.members[best_single], than=tasks[best_single]
        ),
        best_single=best_single,
        patterns={
            name: estimate_on(rows, probs)
            for name, probs in predicted.patterns.items()
            if (rows := np.all([predicted.present[modality] for modality in name.split("+")], axis=0)).any()
        },
        robustness={name: estimate_on(everything, probs_UC) for name, probs_UC in predicted.disturbed.items()},
        robustness_gain={
            name: gain_on(everything, probs_UC, predicted.ensemble_UC) for name, probs_UC in predicted.disturbed.items()
        },
        per_class=per_class,
        averages=averages,
        confusion=confused,
        weights=combination.weights,
        temperature=combination.temperature,
        contributions={
            name: gain_on(everything, predicted.ensemble_UC, without_UC)
            for name, without_UC in _leave_out(combination, predicted, seen_units).items()
        },
        disagreement=disagreement(predicted.members, seen_units),
        slices={
            by: {
                name: Slice(
                    rows=int(rows.sum()),
                    **{system: estimate(each.take(rows), groups_N[rows], *drawn) for system, each in systems.items()},
                )
                for name, rows in cut.items()
            }
            for by, cut in cuts.items()
        },
    )


def _leave_out(combination: Combination, predicted: Predicted, seen: dict[str, Mask]) -> dict[str, Floats]:
    """Return the ensemble's probabilities without each member, where there are several."""
    names = list(combination.weights)
    if len(names) < 2:
        return {}
    log_probs_UMC = torch.from_numpy(np.stack([predicted.members[name] for name in names], 1)).double().log()
    usable_UM = torch.from_numpy(np.stack([seen[name] for name in names], 1))
    present = [torch.from_numpy(predicted.truth.units(rows)) for rows in predicted.present.values()]
    rest = leave_out(log_probs_UMC.clamp(min=-100), usable_UM, number_patterns(present), build_combiner(combination))
    return {name: probs_UC.numpy() for name, probs_UC in zip(names, rest, strict=True)}


if __name__ == "__main__":
    entry.run(main)
