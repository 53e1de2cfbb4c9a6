"""One encoder per modality, each giving one feature vector per example.

Shape letters: B batch, S tokens, H height, W width, D feature size.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from transformers import AutoConfig, AutoModel

from fuseline.errors import ModelError
from fuseline.models.preprocess import Preprocess


class TextEncoder(nn.Module):
    """A Hugging Face encoder or decoder with pooling."""

    def __init__(self, architecture: dict[str, Any], pooling: str) -> None:
        super().__init__()
        options = dict(architecture)
        config = AutoConfig.for_model(options.pop("model_type"), **options)
        extra = {"add_pooling_layer": False} if _accepts_pooling_layer(config) else {}
        self.backbone = AutoModel.from_config(config, **extra)
        self.pooling = pooling
        self.size: int = config.hidden_size

    def forward(self, input_ids_BS: Tensor, attention_mask_BS: Tensor) -> Tensor:
        """Encode token ids, int64, to features [B, D]."""
        states_BSD = self.backbone(input_ids=input_ids_BS, attention_mask=attention_mask_BS).last_hidden_state
        return pool(states_BSD, attention_mask_BS, self.pooling)


def _accepts_pooling_layer(config: Any) -> bool:
    model_class: Any = AutoModel._model_mapping[type(config)]
    return "add_pooling_layer" in inspect.signature(model_class).parameters


def pool(states_BSD: Tensor, mask_BS: Tensor, pooling: str) -> Tensor:
    """Reduce token states to one vector per text; padding, on either side, never counts."""
    if pooling == "mean":
        mask_BS1 = mask_BS.unsqueeze(2).to(states_BSD.dtype)
        return (states_BSD * mask_BS1).sum(1) / mask_BS1.sum(1).clamp(min=1)
    position_S = torch.arange(mask_BS.shape[1], device=mask_BS.device)
    score_BS = mask_BS * (position_S + 1 if pooling == "last" else mask_BS.shape[1] - position_S)
    index_B11 = score_BS.argmax(1)[:, None, None].expand(-1, 1, states_BSD.shape[2])
    return states_BSD.gather(1, index_B11).squeeze(1)


class ImageEncoder(nn.Module):
    """A classifier of torchvision.models without its last layer."""

    def __init__(self, name: str, side: int, blocks: list[int] | None, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.preprocess = Preprocess(side, mean, std)
        self.backbone = build_torchvision(name, side) if blocks is None else build_resnet(name, blocks)
        self.size = drop_classifier(self.backbone, side)

    def forward(self, pixels_BHW3: Tensor) -> Tensor:
        """Encode uint8 pictures to features [B, D]."""
        features: Tensor = self.backbone(self.preprocess(pixels_BHW3))
        return features


def build_torchvision(name: str, side: int) -> nn.Module:
    """Build a torchvision classifier by name, its weights drawn anew.

    Raises:
        ModelError: torchvision has no such classifier.
    """
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise ModelError(f"encoders.image.name: torchvision.models has no classifier {name!r}")
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True}
    elif name.startswith("vit_"):
        options = {"image_size": side}
    elif name.startswith("maxvit"):
        options = {"input_size": (side, side)}
    model: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    return model


def build_resnet(name: str, blocks: list[int]) -> nn.Module:
    """Build a ResNet of the named one's kind of block, with another number of blocks per stage."""
    kind = {"resnet18": BasicBlock, "resnet34": BasicBlock, "resnet50": Bottleneck,
            "resnet101": Bottleneck, "resnet152": Bottleneck}.get(name)  # fmt: skip
    if kind is None:
        raise ModelError(f"encoders.image.blocks: fits resnet18 to resnet152, not {name!r}; set it to null")
    model: nn.Module = torchvision.models.ResNet(kind, blocks)
    return model


def drop_classifier(model: nn.Module, side: int) -> int:
    """Put an identity where the last linear layer stands, and return the size of what comes out."""
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if linears:
        parent, _, child = linears[-1].rpartition(".")
        setattr(model.get_submodule(parent), child, nn.Identity())
    training = model.training
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        size = model.eval()(torch.zeros(1, 3, side, side)).shape[1]
    model.train(training)
    return int(size)
