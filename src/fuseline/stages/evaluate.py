"""Measure the ensemble on the test split: beside its members, and after against before fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from fuseline.config import Params
from fuseline.data.shards import write_table
from fuseline.evaluation.metrics import (
    best_of,
    confusion,
    disagreement,
    estimate,
    estimate_gain,
    headline,
    per_class,
)
from fuseline.progress import Progress, say
from fuseline.records import Combination, Evaluation, Metrics, write_json
from fuseline.stages import entry
from fuseline.training.checkpoints import load_ensemble, load_readers
from fuseline.training.combine import leave_out
from fuseline.training.examples import Collator, Examples
from fuseline.training.features import encode
from fuseline.training.modalities import build_modalities
from fuseline.training.predict import predict_ensemble
from fuseline.training.pretrained import build_member
from fuseline.training.probe import fit_probe, probe_probs
from fuseline.training.trainer import set_up

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Predicted:
    """The test rows and what was predicted for them, probabilities [N, C], all in one order."""

    ids: list[str]
    groups_N: NDArray[np.str_]
    labels_N: NDArray[np.int64]
    present: dict[str, Mask]
    """Per modality: which rows have it."""
    ensemble_NC: Floats
    members: dict[str, Floats]
    before: dict[str, Floats]
    """Per member: a linear head on its encoders as they were loaded, before any fine-tuning."""
    patterns: dict[str, Floats]
    """Per modality: the ensemble when it is given nothing else."""


def main(params: Params) -> None:
    """build/prepare, build/train, build/combine → build/evaluate: evaluation, metrics .json, predictions.parquet."""
    set_up(params.train)
    combination = Combination.read(entry.COMBINE / "combination.json")
    predicted = predict(params, combination)
    evaluation = measure(params, combination, predicted)
    folder = entry.fresh(entry.EVALUATE)
    write_table(to_table(predicted), folder / "predictions.parquet")
    evaluation.write(folder / "evaluation.json")
    write_json(folder / "metrics.json", headline(evaluation))
    accuracy, gain = evaluation.ensemble["accuracy"], evaluation.fusion_gain["accuracy"]
    say(
        f"evaluate: accuracy {accuracy.value:.3f} [{accuracy.low:.3f}, {accuracy.high:.3f}], "
        f"fusion gain {gain.value:+.3f} over {evaluation.best_single}"
    )


def predict(params: Params, combination: Combination) -> Predicted:
    """Run ensemble and members over the test rows that have any modality of theirs."""
    ensemble = load_ensemble(entry.TRAIN, combination)
    used = params.members.modalities()
    collate = Collator(load_readers(entry.TRAIN, ensemble), len(params.task.labels))
    read = partial(Examples, modalities=build_modalities(params.encoders, used), only=used)
    test = read(entry.PREPARE / "test")
    ensemble_NC, members_NMC = predict_ensemble(ensemble, test, collate)
    return Predicted(
        ids=list(test.column("id")),
        groups_N=np.array(list(test.column("group"))),
        labels_N=test.labels,
        present=test.present(),
        ensemble_NC=ensemble_NC,
        members={name: members_NMC[:, index] for index, name in enumerate(combination.weights)},
        before=_predict_before(params, read(entry.PREPARE / "train"), test, collate),
        patterns={modality: predict_ensemble(ensemble, test, collate, [modality])[0] for modality in used},
    )


def _predict_before(params: Params, train: Examples, test: Examples, collate: Collator) -> dict[str, Floats]:
    encoders, used, settings = params.encoders, params.members.modalities(), params.evaluate
    train.thin(settings.probe_rows)
    features, progress = {}, Progress("evaluate before fine-tuning", len(used))
    for done, modality in enumerate(used, start=1):
        any_one = params.members.experts[params.members.experts_on(modality)[0]]  # as loaded, they have one encoder
        model = build_member(any_one, encoders, params.task.labels, params.train.seed)
        features[modality] = [encode(model, modality, split, collate).whole() for split in (train, test)]
        progress.at(done, modality)
    before = {}
    for name, member in params.members.all().items():
        seen_ND, unseen_ND = (np.hstack([features[m][part] for m in member.modalities]) for part in (0, 1))
        head = fit_probe(seen_ND, train.labels, collate.classes, settings.probe_penalty, settings.probe_steps)
        before[name] = probe_probs(unseen_ND, *head)
    return before


def to_table(predicted: Predicted) -> pa.Table:
    """Keep what the judge and the parity of the export go by."""
    return pa.table(
        {
            "id": predicted.ids,
            "group": list(predicted.groups_N),
            "label": predicted.labels_N,
            "probabilities": list(predicted.ensemble_NC),
        }
    )


def measure(params: Params, combination: Combination, predicted: Predicted) -> Evaluation:
    """Measure each system on the rows that have anything it sees; on the others it could only guess."""
    labels_N, groups_N, settings = predicted.labels_N, predicted.groups_N, params.evaluate

    def estimate_on(rows: Mask, probs: Floats) -> Metrics:
        return estimate(probs[rows], labels_N[rows], groups_N[rows], settings.resamples, settings.confidence)

    def gain_on(rows: Mask, after: Floats, before: Floats) -> Metrics:
        drawn = settings.resamples, settings.confidence
        return estimate_gain(after[rows], before[rows], labels_N[rows], groups_N[rows], *drawn)

    seen = {
        name: np.any([predicted.present[modality] for modality in member.modalities], axis=0)
        for name, member in params.members.all().items()
    }
    members = {name: estimate_on(seen[name], probs) for name, probs in predicted.members.items()}
    best_single = best_of({name: members[name] for name in params.members.experts})
    return Evaluation(
        labels=params.task.labels,
        rows=len(labels_N),
        confidence=settings.confidence,
        ensemble=estimate_on(np.full(len(labels_N), True), predicted.ensemble_NC),
        members=members,
        before={name: estimate_on(seen[name], probs) for name, probs in predicted.before.items()},
        fine_tuning_gain={name: gain_on(seen[name], predicted.members[name], predicted.before[name]) for name in seen},
        fusion_gain=gain_on(seen[best_single], predicted.ensemble_NC, predicted.members[best_single]),
        best_single=best_single,
        patterns={
            modality: estimate_on(predicted.present[modality], probs) for modality, probs in predicted.patterns.items()
        },
        per_class=per_class(predicted.ensemble_NC, labels_N, params.task.labels),
        confusion=confusion(predicted.ensemble_NC, labels_N),
        weights=combination.weights,
        temperature=combination.temperature,
        contributions={
            name: gain_on(np.full(len(labels_N), True), predicted.ensemble_NC, without_NC)
            for name, without_NC in _leave_out(combination, predicted, seen).items()
        },
        disagreement=disagreement(predicted.members, seen),
    )


def _leave_out(combination: Combination, predicted: Predicted, seen: dict[str, Mask]) -> dict[str, Floats]:
    """Return the ensemble's probabilities without each member, where there are several."""
    names = list(combination.weights)
    if len(names) < 2:
        return {}
    log_probs_NMC = torch.from_numpy(np.stack([predicted.members[name] for name in names], 1)).double().log()
    usable_NM = torch.from_numpy(np.stack([seen[name] for name in names], 1))
    weights, temperature = list(combination.weights.values()), combination.temperature
    rest = leave_out(log_probs_NMC.clamp(min=-100), usable_NM, weights, temperature, combination.pool)
    return {name: probs_NC.numpy() for name, probs_NC in zip(names, rest, strict=True)}


if __name__ == "__main__":
    entry.run(main)
