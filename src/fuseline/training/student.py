"""The student: one member that learns from the ensemble."""

from __future__ import annotations

from pathlib import Path

from fuseline.config import Distill, Fusion, Params
from fuseline.records import Combination
from fuseline.tasks.base import Task
from fuseline.training.checkpoints import load_ensemble, read_combination, take_encoders
from fuseline.training.combine import fit_decoding, fit_temperature, pool_transitions, read_learned, read_validation
from fuseline.training.lessons import ask
from fuseline.training.pretrained import build_member
from fuseline.training.session import train_member
from fuseline.training.trainer import is_first, set_up

NAME = "student"


def train_student(
    settings: Distill, params: Params, task: Task, prepared: Path, trained: Path, combined: Path, folder: Path
) -> None:
    """Write the student's checkpoint and its combination.json to `folder`.

    Args:
        prepared: the splits.
        trained: the members' checkpoints.
        combined: what makes an ensemble of them.
    """
    set_up(params.train)
    recipe = settings.student
    teacher = load_ensemble(trained, read_combination(combined))
    lessons = ask(teacher, trained, prepared, params.encoders, task, settings)
    encoders = settings.encoders or params.encoders
    model = build_member(recipe, encoders, task, params.train.seed)
    if isinstance(recipe, Fusion):
        take_encoders(model, recipe.start, trained / "experts")
    place = folder / ("fusions" if isinstance(recipe, Fusion) else "experts") / NAME
    train_member(NAME, model, recipe, task, encoders, params.train, prepared, place, lessons=lessons)
    if is_first():
        said = read_validation(prepared / "val", {NAME: recipe.modalities}, {NAME: place})
        logits_UC = said.log_probs_UMC[:, 0]
        temperature = fit_temperature(logits_UC, said.labels_U)
        learned, probs_UC = read_learned(place), (logits_UC / temperature).softmax(1)
        transitions = None if learned is None else pool_transitions([learned], learned, [1.0], temperature)
        decoding = fit_decoding(params.task, said, probs_UC, said.usable_UM[:, 0], transitions)
        combination = Combination(weights={NAME: 1.0}, temperature=temperature, pool="geometric", decoding=decoding)
        combination.write(folder / "combination.json")
