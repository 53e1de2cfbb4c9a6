"""Train a student on what the ensemble says, where params ask for one."""

from __future__ import annotations

from fuseline.config import Params
from fuseline.progress import say
from fuseline.stages import entry


def main(params: Params) -> None:
    """build/prepare, build/train, build/combine → build/distill: a checkpoint, combination.json; or nothing."""
    folder = entry.fresh(entry.DISTILL)
    if params.distill is None:
        say("distill: params.yaml asks for no student")
        return
    from fuseline.training.student import train_student  # here: most runs have none, and torch takes seconds

    task = entry.task_of(params)
    train_student(params.distill, params, task, entry.PREPARE, entry.TRAIN, entry.COMBINE, folder)


if __name__ == "__main__":
    entry.run_shared(main)
