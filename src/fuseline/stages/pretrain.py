"""Pre-train encoders jointly, if params.yaml asks for it."""

from __future__ import annotations

from fuseline.config import Params
from fuseline.progress import say
from fuseline.records import History
from fuseline.stages import entry


def main(params: Params) -> None:
    """build/prepare → build/pretrain: an encoder's weights for each modality, and history.json; empty without it."""
    folder = entry.fresh(entry.PRETRAIN)
    if params.pretrain is None:
        say("pretrain: off, members start from their encoders as loaded")
        return
    from fuseline.training.pretraining import SCORE, pretrain  # here: most runs need none of it, and it takes seconds
    from fuseline.training.trainer import is_first, set_up

    set_up(params.train)
    epochs = pretrain(params.pretrain, params.encoders, params.train, entry.PREPARE, folder)
    if is_first():
        History(metric=SCORE.name, epochs=epochs).write(folder / "history.json")


if __name__ == "__main__":
    entry.run_shared(main)
