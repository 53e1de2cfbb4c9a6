"""Which weights of a member are trained: chosen before training, and adapters merged after it."""

from __future__ import annotations

from peft import LoraConfig
from peft.tuners.lora import LoraModel
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as ATTENTION
from torch import nn
from transformers.pytorch_utils import Conv1D

from fuseline.config import LastLayers, Lora, Member, Tuning
from fuseline.errors import ModelError
from fuseline.models.member import FusionModel
from fuseline.training.layers import depths

LINEAR = (nn.Linear, nn.Conv2d, nn.Conv1d, Conv1D)
"""What adapters fit; the last is what GPT-2 calls its linear layer."""


def tune(model: FusionModel, recipe: Member) -> list[LoraModel]:
    """Freeze what `recipe` leaves as it is, and put adapters where it asks for them.

    Returns:
        The adapters, which `merge` takes.

    Raises:
        ModelError: an encoder has not what the recipe would train.
    """
    adapters = []
    for modality, tuning in recipe.tunings.items():
        network: nn.Module = model.encoders[modality].backbone  # type: ignore[assignment]
        if isinstance(tuning, Lora):
            adapters.append(_adapt(network, tuning, modality))
        else:
            _freeze(network, tuning, modality)
    return adapters


def merge(adapters: list[LoraModel]) -> None:
    """Add the adapters' products to the weights beside them: what is left is an ordinary network."""
    for adapter in adapters:
        adapter.merge_and_unload()


def _freeze(network: nn.Module, tuning: Tuning, modality: str) -> None:
    chosen = _choose(network, tuning, modality)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name in chosen)


def _choose(network: nn.Module, tuning: Tuning, modality: str) -> set[str]:
    names = [name for name, _ in network.named_parameters()]
    if isinstance(tuning, LastLayers):
        found, layers = depths(network)
        if tuning.layers > layers:
            raise ModelError(f"tuning of {modality}: layers is {tuning.layers}, the encoder has {layers}; lower it")
        return {name for name in names if found[name] > layers - tuning.layers}
    if tuning == "bitfit":
        biases = {name for name in names if name.rpartition(".")[2] == "bias"}
        if not biases:
            raise ModelError(f"tuning of {modality}: bitfit trains biases, and the encoder has none; choose another")
        return biases
    return set(names) if tuning == "full" else set()


def _adapt(network: nn.Module, lora: Lora, modality: str) -> LoraModel:
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # peft takes any number
        lora_dropout=lora.dropout,
        target_modules=_targets(network, lora, modality),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in network.modules()),
    )
    return LoraModel(network, config, "default")


def _targets(network: nn.Module, lora: Lora, modality: str) -> list[str]:
    """Name the layers that get adapters.

    Left out: grouped convolutions, which a low-rank product does not fit, and the inside of torch's own attention,
    which takes its weights without calling the layer that holds them.
    """
    if lora.targets == "attention":
        kind = getattr(getattr(network, "config", None), "model_type", None)
        if kind not in ATTENTION:
            raise ModelError(
                f"tuning of {modality}: PEFT names no attention layers of {kind or type(network).__name__}; "
                "set targets to all"
            )
        return list(ATTENTION[kind])
    closed = tuple(f"{name}." for name, module in network.named_modules() if isinstance(module, nn.MultiheadAttention))
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, LINEAR) and getattr(module, "groups", 1) == 1 and not name.startswith(closed)
    ]
