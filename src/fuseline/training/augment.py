"""Random changes of training pictures."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms import v2

from fuseline.config import Augment


def build_change(augment: Augment) -> v2.Transform | torch.nn.Module:
    """Return a random map of a uint8 [side, side, 3] picture to another; white fills what comes in."""
    steps: list[torch.nn.Module] = [v2.RandomHorizontalFlip(augment.flip)]
    if augment.degrees or augment.translate or augment.scale:
        steps.append(
            v2.RandomAffine(
                augment.degrees,
                translate=(augment.translate, augment.translate),
                scale=(1 - augment.scale, 1 + augment.scale),
                interpolation=v2.InterpolationMode.BILINEAR,
                fill=255,
            )
        )
    if augment.color:
        steps.append(v2.ColorJitter(augment.color, augment.color, augment.color))
    if augment.erase:
        steps.append(v2.RandomErasing(augment.erase, value=255))
    return ChannelsLast(v2.Compose(steps))


class ChannelsLast(torch.nn.Module):
    """Run a channels-first transform on a channels-last picture."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, picture: Tensor) -> Tensor:
        """Map [H, W, 3] to [H, W, 3]."""
        changed: Tensor = self.inner(picture.permute(2, 0, 1))
        return changed.permute(1, 2, 0).contiguous()
