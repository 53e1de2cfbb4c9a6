"""Texts: Hugging Face encoders and decoders.

Shape letters: B batch, S tokens, D feature size.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModel

from fuseline.models.encoders.base import Encoded, Encoder, mean_over


class TextEncoder(Encoder):
    """A Hugging Face encoder or decoder with pooling."""

    def __init__(self, architecture: dict[str, Any], pooling: str) -> None:
        super().__init__()
        options = dict(architecture)
        config = AutoConfig.for_model(options.pop("model_type"), **options)
        extra = {"add_pooling_layer": False} if _accepts_pooling_layer(config) else {}
        self.backbone = AutoModel.from_config(config, **extra)
        self.pooling = pooling
        self.numbered = is_causal(config) and "position_ids" in inspect.signature(self.backbone.forward).parameters
        self.size: int = config.hidden_size

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Encoded:  # type: ignore[override]
        """Encode token ids, int64 [B, S], and their mask."""
        extra = {"position_ids": (attention_mask.cumsum(1) - 1).clamp(min=0)} if self.numbered else {}
        states_BSD = self.backbone(input_ids=input_ids, attention_mask=attention_mask, **extra).last_hidden_state
        return Encoded(pool(states_BSD, attention_mask, self.pooling), states_BSD, attention_mask.bool())


def is_causal(config: Any) -> bool:
    """Tell whether each token sees those before it alone, as in GPT.

    Such a model gets its positions from us: counted from the first token on, padding at the left counts for none.
    """
    return type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and getattr(config, "is_decoder", True)


def _accepts_pooling_layer(config: Any) -> bool:
    model_class: Any = AutoModel._model_mapping[type(config)]
    return "add_pooling_layer" in inspect.signature(model_class).parameters


def pool(states_BSD: Tensor, mask_BS: Tensor, pooling: str) -> Tensor:
    """Reduce token states to one vector per text; padding, on either side, never counts."""
    if pooling == "mean":
        return mean_over(states_BSD, mask_BS)
    position_S = torch.arange(mask_BS.shape[1], device=mask_BS.device)
    score_BS = mask_BS * (position_S + 1 if pooling == "last" else mask_BS.shape[1] - position_S)
    index_B11 = score_BS.argmax(1)[:, None, None].expand(-1, 1, states_BSD.shape[2])
    return states_BSD.gather(1, index_B11).squeeze(1)
