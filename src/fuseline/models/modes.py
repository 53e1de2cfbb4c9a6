"""Training and evaluation mode, module by module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from torch import nn
from transformers import PreTrainedModel


class EncodersModel(PreTrainedModel):
    """A model of encoders by modality: what is frozen in them stays still, and all parts initialise themselves."""

    main_input_name = "labels"
    accepts_loss_kwargs = False  # `inputs` are no options of the loss: Trainer takes any **keywords for such
    encoders: nn.ModuleDict

    def train(self, mode: bool = True) -> Self:
        """Switch to training; what is frozen stays as in evaluation, norms and dropout too."""
        super().train(mode)
        for encoder in self.encoders.values():
            rest_frozen(encoder)
        return self

    def _init_weights(self, module: nn.Module) -> None:
        """Keep what the constructors set."""


def rest_frozen(module: nn.Module) -> None:
    """Put every part that has weights, none of them trainable, into evaluation: its norms and dropout stay still."""
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        module.eval()
        return
    for child in module.children():
        rest_frozen(child)


@contextmanager
def in_evaluation(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation, and each of its parts back into the mode that it had."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
