"""Measure the ensemble on the test split: beside its members, and after against before fine-tuning."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fuseline.config import Params
from fuseline.data.shards import write_table
from fuseline.evaluation.metrics import confusion, estimate, estimate_gain, per_class
from fuseline.progress import Progress, say
from fuseline.records import Combination, Evaluation, Metrics
from fuseline.stages import entry
from fuseline.training.checkpoints import load_ensemble, load_saved_tokenizer
from fuseline.training.examples import Collator, Examples
from fuseline.training.predict import encode, predict_ensemble
from fuseline.training.pretrained import build_member
from fuseline.training.probe import fit_probe, probe_probs
from fuseline.training.trainer import set_up

Floats = NDArray[np.floating]


def main(params: Params) -> None:
    """build/prepare, build/train, build/combine → build/evaluate: evaluation.json, predictions.parquet."""
    set_up(params.train)
    combination = Combination.read(entry.COMBINE / "combination.json")
    ensemble = load_ensemble(entry.TRAIN, combination)
    side, labels = params.encoders.image.size, params.task.labels
    tokenizer = load_saved_tokenizer(entry.TRAIN, ensemble)
    collate = Collator(tokenizer, side, len(labels))
    read = partial(Examples, side=side)
    test = read(entry.PREPARE / "test", modalities=params.members.modalities())
    ids, truth_N, present = test.column("id"), test.labels, test.present()
    probs_NC, members_NMC = predict_ensemble(ensemble, test, collate)
    patterns: dict[str, Floats] = {
        modality: predict_ensemble(ensemble, test, collate, [modality])[0] for modality in params.members.modalities()
    }
    before = _predict_before(params, read, collate)
    folder = entry.fresh(entry.EVALUATE)
    write_table(
        pa.table({"id": ids, "label": truth_N, "probabilities": list(probs_NC)}), folder / "predictions.parquet"
    )
    members = {name: members_NMC[:, index] for index, name in enumerate(combination.weights)}
    evaluation = _evaluate(params, combination, truth_N, probs_NC, members, before, patterns, present)
    evaluation.write(folder / "evaluation.json")
    accuracy, gain = evaluation.ensemble["accuracy"], evaluation.fusion_gain["accuracy"]
    say(
        f"evaluate: accuracy {accuracy.value:.3f} [{accuracy.low:.3f}, {accuracy.high:.3f}], "
        f"fusion gain {gain.value:+.3f} over {evaluation.best_single}"
    )


def _predict_before(params: Params, read: Callable[..., Examples], collate: Collator) -> dict[str, Floats]:
    """Predict with a linear head on each member's encoders as they were loaded, before any fine-tuning."""
    experts, encoders = params.members.experts, params.encoders
    used = params.members.modalities()
    train, test = (read(entry.PREPARE / split, modalities=used) for split in ("train", "test"))
    train.thin(params.evaluate.probe_rows)
    features, progress = {}, Progress("evaluate before fine-tuning", len(experts))
    for done, (name, recipe) in enumerate(experts.items(), start=1):
        model = build_member(recipe, encoders.text, encoders.image, params.task.labels, params.train.seed)
        features[recipe.modality] = encode(model, train, collate), encode(model, test, collate)
        progress.at(done, name)
    before = {}
    for name, member in params.members.all().items():
        seen_ND, unseen_ND = (np.hstack([features[m][part] for m in member.modalities]) for part in (0, 1))
        before[name] = probe_probs(unseen_ND, *fit_probe(seen_ND, train.labels, collate.classes))
    return before


def _evaluate(
    params: Params, combination: Combination, truth_N: NDArray[np.int64], probs_NC: Floats,
    members: dict[str, Floats], before: dict[str, Floats], patterns: dict[str, Floats],
    present: dict[str, NDArray[np.bool_]],
) -> Evaluation:  # fmt: skip
    settings = params.evaluate.resamples, params.evaluate.confidence
    seen = {
        name: np.any([present[m] for m in member.modalities], axis=0) for name, member in params.members.all().items()
    }

    def measure(systems: dict[str, Floats], rows: dict[str, NDArray[np.bool_]]) -> dict[str, Metrics]:
        """Measure each system on the rows that have anything it sees; on the others it could only guess."""
        return {name: estimate(probs[rows[name]], truth_N[rows[name]], *settings) for name, probs in systems.items()}

    measured = measure(members, seen)
    best_single = max(params.members.experts, key=lambda name: measured[name]["accuracy"].value)
    return Evaluation(
        labels=params.task.labels,
        rows=len(truth_N),
        confidence=params.evaluate.confidence,
        ensemble=estimate(probs_NC, truth_N, *settings),
        members=measured,
        before=measure(before, seen),
        fine_tuning_gain={
            name: estimate_gain(members[name][seen[name]], before[name][seen[name]], truth_N[seen[name]], *settings)
            for name in members
        },
        fusion_gain=estimate_gain(
            probs_NC[seen[best_single]], members[best_single][seen[best_single]], truth_N[seen[best_single]], *settings
        ),
        best_single=best_single,
        patterns=measure(patterns, present),
        per_class=per_class(probs_NC, truth_N, params.task.labels),
        confusion=confusion(probs_NC, truth_N),
        weights=combination.weights,
        temperature=combination.temperature,
    )


if __name__ == "__main__":
    entry.run(main)
