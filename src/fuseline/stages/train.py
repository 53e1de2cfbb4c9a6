"""Train one expert: `python -m fuseline.stages.train EXPERT`."""

from __future__ import annotations

from fuseline.config import Params
from fuseline.stages import entry
from fuseline.training.beginning import build_begun
from fuseline.training.session import train_member
from fuseline.training.trainer import set_up


def main(params: Params, name: str) -> None:
    """build/prepare, build/pretrain, start → build/train/experts/EXPERT: checkpoint, readers, history, validation."""
    recipe, encoders = params.members.experts[name], params.encoders
    set_up(params.train)
    task = entry.task_of(params)
    model, beginning = build_begun(recipe, params, task, f"experts/{name}", entry.PRETRAIN, entry.START, entry.EXPERTS)
    folder = entry.fresh(entry.EXPERTS / name)
    train_member(name, model, recipe, task, encoders, params.train, entry.PREPARE, folder, beginning)


if __name__ == "__main__":
    entry.run_member(main, lambda members: members.experts)
