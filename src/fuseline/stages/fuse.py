"""Train one fusion member, its encoders started from the experts': `python -m fuseline.stages.fuse MEMBER`."""

from __future__ import annotations

from fuseline.config import Params
from fuseline.stages import entry
from fuseline.training.checkpoints import take_encoders
from fuseline.training.pretrained import build_member
from fuseline.training.pretraining import start_encoders
from fuseline.training.session import train_member
from fuseline.training.trainer import set_up
from fuseline.training.warm import begin


def main(params: Params, name: str) -> None:
    """build/prepare, build/pretrain, build/train/experts, start → build/train/fusions/MEMBER, as an expert's."""
    recipe, encoders = params.members.fusions[name], params.encoders
    set_up(params.train)
    task = entry.task_of(params)
    model = build_member(recipe, encoders, task, params.train.seed)
    start_encoders(model, entry.PRETRAIN)
    beginning = begin(model, recipe.warm_start, params, entry.START, f"fusions/{name}")
    if beginning is None or beginning.version is None:
        take_encoders(model, recipe.start, entry.EXPERTS)
    folder = entry.fresh(entry.FUSIONS / name)
    train_member(name, model, recipe, task, encoders, params.train, entry.PREPARE, folder, beginning)


if __name__ == "__main__":
    entry.run_member(main, lambda members: members.fusions)
