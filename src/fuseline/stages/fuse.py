"""Train one fusion member, its encoders started from the experts': `python -m fuseline.stages.fuse MEMBER`."""

from __future__ import annotations

from fuseline.config import Params
from fuseline.stages import entry
from fuseline.training.beginning import build_begun
from fuseline.training.session import train_member
from fuseline.training.trainer import set_up


def main(params: Params, name: str) -> None:
    """build/prepare, build/pretrain, build/train/experts, start → build/train/fusions/MEMBER, as an expert's."""
    recipe, encoders = params.members.fusions[name], params.encoders
    set_up(params.train)
    task = entry.task_of(params)
    model, beginning = build_begun(recipe, params, task, f"fusions/{name}", entry.PRETRAIN, entry.START, entry.EXPERTS)
    folder = entry.fresh(entry.FUSIONS / name)
    train_member(name, model, recipe, task, encoders, params.train, entry.PREPARE, folder, beginning)


if __name__ == "__main__":
    entry.run_member(main, lambda members: members.fusions)
