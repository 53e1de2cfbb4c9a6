"""Texts: Hugging Face encoders and decoders.

Shape letters: B batch, S tokens, D feature size.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModel

from fuseline.models.encoders.base import Encoded, Encoder, mean_over
from fuseline.models.layout import Layout


class TextEncoder(Encoder):
    """A Hugging Face encoder or decoder with pooling.

    Args:
        layout: whether it sees where tokens stand in a picture.
    """

    def __init__(self, architecture: dict[str, Any], pooling: str, layout: bool = False) -> None:
        super().__init__()
        options = dict(architecture)
        config = AutoConfig.for_model(options.pop("model_type"), **options)
        extra = {"add_pooling_layer": False} if _accepts_pooling_layer(config) else {}
        self.backbone = AutoModel.from_config(config, **extra)
        self.pooling = pooling
        self.causal = is_causal(config)
        self.numbered = self.causal and "position_ids" in inspect.signature(self.backbone.forward).parameters
        self.size: int = config.hidden_size
        self.layout: Layout | None = None
        if layout:
            heads = config.num_attention_heads if takes_scores(self.backbone) else 0
            self.layout = Layout(self.backbone.get_input_embeddings().embedding_dim, heads)

    def take(self, weights: Mapping[str, Tensor]) -> None:
        own = self.state_dict()
        super().take({name: tensor for name, tensor in own.items() if name.startswith("layout.")} | dict(weights))

    def forward(  # type: ignore[override]
        self, input_ids: Tensor, attention_mask: Tensor, boxes: Tensor | None = None
    ) -> Encoded:
        """Encode token ids, int64 [B, S], and their mask; with layout, also `boxes` [B, S, 4], as in inputs.boxes."""
        extra = {"position_ids": (attention_mask.cumsum(1) - 1).clamp(min=0)} if self.numbered else {}
        words, seen = {"input_ids": input_ids}, attention_mask
        if self.layout is not None and boxes is not None:
            words = {"inputs_embeds": self.backbone.get_input_embeddings()(input_ids) + self.layout(boxes)}
            if self.layout.relations is not None:
                seen = self.layout.scores(boxes, attention_mask, self.causal)
        states_BSD = self.backbone(**words, attention_mask=seen, **extra).last_hidden_state
        return Encoded(pool(states_BSD, attention_mask, self.pooling), states_BSD, attention_mask.bool())


def is_causal(config: Any) -> bool:
    """Tell whether each token sees those before it alone, as in GPT.

    Such a model gets its positions from us: counted from the first token on, padding at the left counts for none.
    """
    return type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and getattr(config, "is_decoder", True)


def takes_scores(backbone: torch.nn.Module) -> bool:
    """Tell whether attention takes scores [B, heads, S, S] in place of a mask.

    transformers hands on such a mask as it is, in all models that make theirs by its masking_utils. Not where a model
    has a window too: of one mask for all layers it could not make that.
    """
    module, settings = sys.modules[type(backbone).__module__], backbone.config
    windows = [kind for kind in getattr(settings, "layer_types", None) or () if kind != "full_attention"]
    whole = not windows and getattr(settings, "sliding_window", None) is None
    return whole and any(hasattr(module, f"create_{kind}_mask") for kind in ("bidirectional", "causal"))


def _accepts_pooling_layer(config: Any) -> bool:
    model_class: Any = AutoModel._model_mapping[type(config)]
    return "add_pooling_layer" in inspect.signature(model_class).parameters


def pool(states_BSD: Tensor, mask_BS: Tensor, pooling: str) -> Tensor:
    """Reduce token states to one vector per text; padding, on either side, never counts."""
    if pooling == "mean":
        return mean_over(states_BSD, mask_BS)
    position_S = torch.arange(mask_BS.shape[1], device=mask_BS.device)
    score_BS = mask_BS * (position_S + 1 if pooling == "last" else position_S[-1] + 1 - position_S)
    index_B11 = score_BS.argmax(1)[:, None, None].expand(-1, 1, states_BSD.shape[2])
    return states_BSD.gather(1, index_B11).squeeze(1)
