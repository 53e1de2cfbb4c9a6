"""What a member's training begins with."""

from __future__ import annotations

from pathlib import Path

from fuseline.config import Fusion, Member, Params
from fuseline.models.member import FusionModel
from fuseline.tasks.base import Task
from fuseline.training.checkpoints import take_encoders
from fuseline.training.pretrained import build_member
from fuseline.training.pretraining import start_encoders
from fuseline.training.warm import Beginning, begin


def build_begun(
    recipe: Member, params: Params, task: Task, place: str, pretrained: Path | None, champion: Path, experts: Path
) -> tuple[FusionModel, Beginning | None]:
    """Build a member with the weights that its training begins with: of pre-training, the champion's, or experts'.

    Args:
        place: the member's, such as experts/text.
        pretrained: what pre-training left; None leaves encoders as loaded.
        champion: holds the champion's members.
        experts: holds the trained experts that a fusion member may start from.
    """
    model = build_member(recipe, params.encoders, task, params.train.seed)
    if pretrained is not None:
        start_encoders(model, pretrained)
    beginning = begin(model, recipe.warm_start, params, champion, place)
    if isinstance(recipe, Fusion) and (beginning is None or beginning.version is None):
        take_encoders(model, recipe.start, experts)
    return model, beginning
