"""Train a student on what the ensemble says, where params ask for one."""

from __future__ import annotations

from fuseline.config import Fusion, Params
from fuseline.progress import say
from fuseline.records import Combination
from fuseline.stages import entry
from fuseline.training.checkpoints import load_ensemble, read_combination, take_encoders
from fuseline.training.combine import fit_temperature, read_validation
from fuseline.training.lessons import ask
from fuseline.training.pretrained import build_member
from fuseline.training.session import train_member
from fuseline.training.trainer import is_first, set_up

NAME = "student"


def main(params: Params) -> None:
    """build/prepare, build/train, build/combine → build/distill: a checkpoint, combination.json; or nothing."""
    folder = entry.fresh(entry.DISTILL)
    if params.distill is None:
        say("distill: params.yaml asks for no student")
        return
    set_up(params.train)
    task, recipe = entry.task_of(params), params.distill.student
    teacher = load_ensemble(entry.TRAIN, read_combination(entry.COMBINE))
    lessons = ask(teacher, entry.TRAIN, entry.PREPARE, params.encoders, task, params.distill)
    encoders = params.distill.encoders or params.encoders
    model = build_member(recipe, encoders, task, params.train.seed)
    if isinstance(recipe, Fusion):
        take_encoders(model, recipe.start, entry.EXPERTS)
    place = folder / ("fusions" if isinstance(recipe, Fusion) else "experts") / NAME
    train_member(NAME, model, recipe, task, encoders, params.train, entry.PREPARE, place, lessons=lessons)
    if is_first():
        said = read_validation(entry.PREPARE / "val", {NAME: recipe.modalities}, {NAME: place})
        temperature = fit_temperature(said.log_probs_UMC[:, 0], said.labels_U)
        Combination(weights={NAME: 1.0}, temperature=temperature, pool="geometric").write(folder / "combination.json")


if __name__ == "__main__":
    entry.run_shared(main)
