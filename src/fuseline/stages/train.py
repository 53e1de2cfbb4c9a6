"""Train one expert: `python -m fuseline.stages.train EXPERT`."""

from __future__ import annotations

from fuseline.config import Params
from fuseline.stages import entry
from fuseline.training.pretrained import build_member
from fuseline.training.pretraining import start_encoders
from fuseline.training.session import train_member
from fuseline.training.trainer import set_up
from fuseline.training.warm import begin


def main(params: Params, name: str) -> None:
    """build/prepare, build/pretrain, start → build/train/experts/EXPERT: checkpoint, readers, history, validation."""
    recipe, encoders = params.members.experts[name], params.encoders
    set_up(params.train)
    task = entry.task_of(params)
    model = build_member(recipe, encoders, task, params.train.seed)
    start_encoders(model, entry.PRETRAIN)
    beginning = begin(model, recipe.warm_start, params, entry.START, f"experts/{name}")
    folder = entry.fresh(entry.EXPERTS / name)
    train_member(name, model, recipe, task, encoders, params.train, entry.PREPARE, folder, beginning)


if __name__ == "__main__":
    entry.run_member(main, lambda members: members.experts)
