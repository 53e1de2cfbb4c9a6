"""Say what the ensemble's answers rest on, and which labels to look at again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from fuseline.config import Explain, Members, Params
from fuseline.data.shards import pick_rows
from fuseline.evaluation.metrics import estimate_mean
from fuseline.explanation.attribution import attribute
from fuseline.explanation.label_errors import find_label_errors
from fuseline.explanation.review import write_review
from fuseline.models.ensemble import Ensemble
from fuseline.progress import Progress, say
from fuseline.records import REVIEW, Combination, Doubt, Explained, Explanation, Marked, Seen
from fuseline.runtime.shapley import Coalition, coalitions, shapley
from fuseline.stages import entry
from fuseline.tasks.base import Task, Truth
from fuseline.training.checkpoints import (
    build_combiner,
    find_checkpoint,
    load_ensemble,
    load_readers,
    read_combination,
)
from fuseline.training.combine import read_validation
from fuseline.training.examples import Collator, Examples
from fuseline.training.modalities import build_modalities
from fuseline.training.modalities.image import Image
from fuseline.training.trainer import set_up

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Asked:
    """Rows of a split, and what the ensemble says of their units with each set of modalities in sight."""

    split: str
    examples: Examples
    truth: Truth
    probs: Mapping[Coalition, Floats]
    """[U, C] each."""

    @property
    def whole_UC(self) -> Floats:
        """What is said with all in sight."""
        return self.probs[max(self.probs, key=len)]


def main(params: Params) -> None:
    """build/prepare, train, combine, evaluate → build/explain: explanation.json, and review/ for Label Studio."""
    set_up(params.train)
    settings, combination = params.explain, read_combination(entry.COMBINE)
    task, used = entry.task_of(params).decided(combination.decoding), params.members.modalities()
    ensemble = load_ensemble(entry.TRAIN, combination)
    modalities = build_modalities(params.encoders, used, task.words, ensemble.layout)
    splits = {
        name: Examples(entry.PREPARE / name, modalities, only=None if name == "train" else task.wanted(used))
        for name in ("train", "val", "test")
    }
    test = read_test(
        task, splits["test"], say_by_chance(task, splits["train"].labels, len(splits["test"].labels)), used
    )
    val = read_val(task, splits["val"], combination, params.members)
    values = {shown: score_units(task, probs_UC, test.truth) for shown, probs_UC in test.probs.items()}
    doubts = [doubt for asked in (val, test) for doubt in find_doubts(task, asked)]
    ranked = sorted(doubts, key=lambda doubt: doubt.margin)[: settings.review]
    image = modalities.get("image")
    explanation = Explanation(
        rows=len(test.examples),
        chance={name: float(score_U.mean()) for name, score_U in values[frozenset()].items()},
        modalities=share_metrics(values, test, used, params),
        by_class=share_classes(task, test, used),
        errors=explain_errors(ensemble, task, test, used, settings),
        doubts=ranked,
        seen=Seen(side=image.view.side, shorter=image.view.shorter) if isinstance(image, Image) else None,
    )
    folder = entry.fresh(entry.EXPLAIN)
    picked = [pick_rows(entry.PREPARE / name, [each.id for each in ranked if each.split == name]) for name in splits]
    write_review(folder / REVIEW, task, ranked, {row["id"]: row for row in chain(*picked)})
    explanation.write(folder / "explanation.json")
    shares = ", ".join(f"{name} {found['accuracy'].value:+.3f}" for name, found in explanation.modalities.items())
    say(f"explain: accuracy {explanation.chance['accuracy']:.3f} with nothing in sight, {shares}")
    say(f"explain: {count(len(ranked))} with a doubtful label to look at again, in {folder / REVIEW}")


def count(examples: int) -> str:
    """Count examples in words."""
    return "1 example" if examples == 1 else f"{examples:,} examples"


def find_truth(task: Task, examples: Examples) -> Truth:
    """Say what is true of rows."""
    return task.find_truth(*(examples.column(name) for name in ("label", "target", "text")))


def read_test(task: Task, examples: Examples, chance_UC: Floats, used: Sequence[str]) -> Asked:
    """Read what evaluation found the ensemble to say of the test rows.

    Args:
        chance_UC: what is said of rows of which nothing is in sight, or nothing that the problem needs.
    """
    truth, present = find_truth(task, examples), examples.present()
    whole = pq.read_table(entry.EVALUATE / "predictions.parquet", columns=["id", "probabilities"])
    parts = pq.read_table(entry.PATTERNS)
    assert whole["id"].to_pylist() == parts["id"].to_pylist() == examples.column("id")
    said = {"+".join(used): whole["probabilities"]} | {name: parts[name] for name in parts.column_names if name != "id"}
    probs: dict[Coalition, Floats] = dict.fromkeys(coalitions(used), chance_UC)
    for name, column in said.items():
        shown = name.split("+")
        there_U = truth.units(np.any([present[each] for each in task.wanted(shown)], axis=0))
        probs[frozenset(shown)] = np.where(there_U[:, None], units_of(column, len(task.classes)), chance_UC)
    return Asked("test", examples, truth, probs)


def units_of(column: pa.ChunkedArray, classes: int) -> Floats:
    """Return the probabilities of units [U, C] from those of rows."""
    found: Floats = column.combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, classes)
    return found


def read_val(task: Task, examples: Examples, combination: Combination, members: Members) -> Asked:
    """Make what the ensemble says of the validation rows of what its members said of them."""
    recipes = members.all()
    folders = {name: find_checkpoint(entry.TRAIN, name) for name in recipes}
    wanted = {name: member.modalities for name, member in recipes.items()}
    said = read_validation(entry.PREPARE / "val", wanted, folders)
    logits_UC = build_combiner(combination)(said.log_probs_UMC, said.usable_UM, said.patterns_U)
    whole = frozenset(members.modalities())
    return Asked("val", examples, find_truth(task, examples), {whole: logits_UC.softmax(1).numpy()})


def say_by_chance(task: Task, train_U: NDArray[np.int64], units: int) -> Floats:
    """Return the classes' shares among the training units, for each of some units [U, C]; for each label its own."""
    eye = np.eye(len(task.classes))
    if task.unit == "label":
        shares_LC = eye[train_U.reshape(-1, len(task.labels))].mean(0)
        return np.tile(shares_LC, (units // len(task.labels), 1))
    return np.broadcast_to(eye[train_U].mean(0), (units, len(eye)))


def score_units(task: Task, probs_UC: Floats, truth: Truth) -> dict[str, Floats]:
    """Return accuracy and nll of each unit [U]."""
    own_U = probs_UC[np.arange(len(probs_UC)), truth.labels_U]
    return {
        "accuracy": (task.decide(probs_UC) == truth.labels_U).astype(float),
        "nll": -np.log(np.clip(own_U, 1e-12, 1)),
    }


def share_metrics(
    values: Mapping[Coalition, Mapping[str, Floats]], asked: Asked, used: Sequence[str], params: Params
) -> dict[str, dict[str, Any]]:
    """Return by modality and metric the Shapley value, on the mean over units, with its interval."""
    groups_U = np.repeat(np.array(asked.examples.column("group")), asked.truth.counts_N)
    drawn = params.evaluate.resamples, params.evaluate.confidence
    found: dict[str, dict[str, Any]] = {name: {} for name in used}
    for metric in ("accuracy", "nll"):
        for name, share_U in shapley({S: scores[metric] for S, scores in values.items()}, used).items():
            found[name][metric] = estimate_mean(share_U, groups_U, *drawn)
    return found


def share_classes(task: Task, asked: Asked, used: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return what each modality adds to the probability of a class where it is the true one."""
    labels_U, units_U = asked.truth.labels_U, np.arange(len(asked.truth.labels_U))
    shares = shapley({S: probs_UC[units_U, labels_U] for S, probs_UC in asked.probs.items()}, used)
    names, kinds_U = task.classes, labels_U
    if task.unit == "label":  # the units that have a label, by label
        names, kinds_U = task.labels, np.where(labels_U == 1, units_U % len(task.labels), -1)
    return {
        label: {name: float(share_U[kinds_U == number].mean()) for name, share_U in shares.items()}
        for number, label in enumerate(names)
        if (kinds_U == number).any()
    }


def explain_errors(
    ensemble: Ensemble, task: Task, asked: Asked, used: Sequence[str], settings: Explain
) -> list[Explained]:
    """Explain the wrong answers that were given with most confidence, one of a row at most."""
    guessed_U, labels_U = task.decide(asked.whole_UC), asked.truth.labels_U
    units_U = np.arange(len(labels_U))
    sure_U = np.where(guessed_U != labels_U, asked.whole_UC[units_U, guessed_U], -1.0)
    wrong = np.argsort(-sure_U, kind="stable")[: int((sure_U >= 0).sum())]
    rows, places = asked.truth.places(wrong)
    firsts = np.sort(np.unique(rows, return_index=True)[1])[: settings.examples]
    shares = shapley({S: probs_UC[units_U, guessed_U] for S, probs_UC in asked.probs.items()}, used)
    ids, texts, progress = asked.examples.column("id"), asked.examples.column("text"), Progress("explain", len(firsts))
    found = []
    collate = Collator(load_readers(entry.TRAIN, ensemble), len(task.classes), words=task.words)
    for done, first in enumerate(firsts, start=1):
        unit, row, within = (int(each[first]) for each in (wrong, rows, places))
        said_C, guess, true = asked.whole_UC[unit], int(guessed_U[unit]), int(labels_U[unit])
        words, pictures, recording = explain_row(
            ensemble, collate, asked.examples[row], texts[row],
            (guess,) if task.unit == "row" else (within, guess), settings,
        )  # fmt: skip
        found.append(Explained(
            id=ids[row], unit=None if task.unit == "row" else within, label=name_unit(task, within, true),
            predicted=name_unit(task, within, guess), probability=float(said_C[guess]),
            label_probability=float(said_C[true]),
            modalities={name: float(share_U[unit]) for name, share_U in shares.items()},
            chance=float(asked.probs[frozenset()][unit, guess]), words=words, pictures=pictures, recording=recording,
        ))  # fmt: skip
        progress.at(done)
    return found


def name_unit(task: Task, within: int, number: int) -> str:
    """Name a class; where labels are answered yes or no each, with the label that it is of."""
    return f"{task.labels[within]}: {task.classes[number]}" if task.unit == "label" else task.classes[number]


def explain_row(
    ensemble: Ensemble, collate: Collator, example: dict[str, Any], text: str | None, chosen: tuple[int, ...],
    settings: Explain,
) -> tuple[list[Marked], list[list[list[float]]], list[float]]:  # fmt: skip
    """Attribute an answer to words, pictures and stretches of a recording; what a row lacks is empty."""
    batch, offsets, kept = collate([example]), list[tuple[int, int]](), None
    batch.pop("labels", None)
    if text is not None and "text" in collate.readers:
        encoding = collate.readers["text"].tokenizer.encode(text)  # type: ignore[attr-defined]
        offsets, kept = encoding.offsets, torch.tensor([encoding.special_tokens_mask], dtype=torch.bool)
    found = attribute(ensemble, batch, chosen, settings.steps, settings.grid, kept)
    pairs = zip(offsets, found.tokens or [], strict=False)
    words = [Marked(start=start, end=end, share=share) for (start, end), share in pairs if end > start]
    return words, found.cells or [], found.stretches or []


def find_doubts(task: Task, asked: Asked) -> list[Doubt]:
    """Return the rows whose labels are in doubt, each once, by the unit that is most in doubt."""
    suspects = find_label_errors(asked.whole_UC, asked.truth.labels_U)
    ids, targets, texts = (asked.examples.column(name) for name in ("id", "target", "text"))
    by_row, doubts = asked.truth.by_row(asked.whole_UC), dict[int, Doubt]()
    rows, _ = asked.truth.places(suspects.units)
    for row, unit, suggested, margin in zip(
        rows.tolist(), suspects.units, suspects.suggested, suspects.margins, strict=True
    ):
        if row not in doubts:
            probs_C = by_row[row][0] if task.unit == "row" else by_row[row]
            doubts[row] = Doubt(
                id=ids[row], split=asked.split, label=targets[row], answer=task.answer(texts[row], probs_C),
                probability=float(asked.whole_UC[unit, suggested]), margin=float(margin),
            )  # fmt: skip
    return list(doubts.values())


if __name__ == "__main__":
    entry.run(main)
