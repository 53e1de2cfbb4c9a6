"""FusionModel: encoders, fusion, head. One member of the ensemble, on one modality or on several.

Shape letters: B batch, S tokens, H height, W width, C classes, D feature size.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PretrainedConfig, PreTrainedModel

from fuseline.models.encoders import ImageEncoder, TextEncoder
from fuseline.models.fusion import FUSIONS
from fuseline.models.modes import in_evaluation, rest_frozen


class FusionConfig(PretrainedConfig):
    """All that rebuilds a FusionModel without its training code's defaults."""

    model_type = "fuseline-fusion"

    def __init__(
        self,
        modalities: list[str] | None = None,
        labels: list[str] | None = None,
        text: dict[str, Any] | None = None,
        image: dict[str, Any] | None = None,
        fusion: str | None = None,
        hidden: int | None = None,
        dropout: float = 0.0,
        modality_dropout: float = 0.0,
        **options: Any,
    ) -> None:
        self.modalities = modalities or []
        self.labels = labels or []
        self.text = text
        self.image = image
        self.fusion = fusion
        self.hidden = hidden
        self.dropout = dropout
        self.modality_dropout = modality_dropout
        super().__init__(**options)


class FusionModel(PreTrainedModel):
    """Classify from whichever modalities it was built for; any of them may be missing in an example.

    A missing modality is a presence flag and a learned embedding in place of the encoder's features,
    the same in training, evaluation and export.
    """

    config_class = FusionConfig
    config: FusionConfig
    main_input_name = "labels"
    supports_gradient_checkpointing = False

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        self.encoders = nn.ModuleDict()
        if "text" in config.modalities:
            assert config.text is not None
            self.encoders["text"] = TextEncoder(**config.text)
        if "image" in config.modalities:
            assert config.image is not None
            self.encoders["image"] = ImageEncoder(**config.image)
        sizes = [int(self.encoders[name].size) for name in config.modalities]  # type: ignore[arg-type]
        self.missing = nn.ParameterDict()
        self.fusion: nn.Module | None = None
        if config.fusion is not None:
            assert config.hidden is not None
            self.fusion = FUSIONS[config.fusion](sizes, config.hidden)
            for name, size in zip(config.modalities, sizes, strict=True):
                self.missing[name] = nn.Parameter(torch.zeros(size))
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.hidden or sizes[0], len(config.labels))
        self.all_tied_weights_keys: dict[str, str] = {}

    def train(self, mode: bool = True) -> Self:
        """Switch to training; what is frozen stays as in evaluation, norms and dropout too."""
        super().train(mode)
        for encoder in self.encoders.values():
            rest_frozen(encoder)
        return self

    def _init_weights(self, module: nn.Module) -> None:
        """Keep what the constructors set: each part initialises itself."""

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        has_text: Tensor,
        pixels: Tensor,
        has_image: Tensor,
        labels: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Score every class.

        Args:
            input_ids: int64 [B, S].
            attention_mask: int64 [B, S], 1 at tokens, 0 at padding.
            has_text: bool [B].
            pixels: uint8 [B, H, W, 3].
            has_image: bool [B].
            labels: class probabilities, float [B, C]; with them the loss is returned too.

        Returns:
            `logits` [B, C], and `loss` where labels are given.
        """
        inputs = {"text": (input_ids, attention_mask), "image": (pixels,)}
        present = hide_some(
            {name: {"text": has_text, "image": has_image}[name] for name in self.config.modalities},
            self.config.modality_dropout if self.training else 0.0,
        )
        features_BD = self.embed(inputs, present)
        logits_BC = self.head(self.dropout(features_BD))
        if labels is None:
            return {"logits": logits_BC}
        return {"loss": F.cross_entropy(logits_BC, labels), "logits": logits_BC}

    def embed(self, inputs: dict[str, tuple[Tensor, ...]], present: dict[str, Tensor]) -> Tensor:
        """Return the vector [B, D] that the head sees."""
        features = [self._encode(name, inputs[name], present[name]) for name in self.config.modalities]
        if self.fusion is None:
            return features[0]
        joint: Tensor = self.fusion(features)
        return joint

    def _encode(self, name: str, inputs: tuple[Tensor, ...], present_B: Tensor) -> Tensor:
        """Encode one modality; where it is missing, put the learned embedding.

        In training absent rows stay out of the encoder: blank pictures would bend its batch norm.
        """
        encoder = self.encoders[name]
        if not self.missing:
            return run_encoder(encoder, inputs)
        missing_D: Tensor = self.missing[name]
        if not self.training:
            return torch.where(present_B[:, None], run_encoder(encoder, inputs), missing_D)
        features_BD = missing_D.expand(len(present_B), -1)
        if not present_B.any():
            return features_BD
        encoded = run_encoder(encoder, tuple(tensor[present_B] for tensor in inputs))
        return features_BD.to(encoded.dtype).index_put((present_B.nonzero().squeeze(1),), encoded)


def run_encoder(encoder: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """Encode rows; a single row in training runs as in evaluation, for batch norm cannot learn from one."""
    alone = encoder.training and len(inputs[0]) == 1
    with in_evaluation(encoder) if alone else nullcontext():
        features_BD: Tensor = encoder(*inputs)
    return features_BD


def hide_some(present: dict[str, Tensor], probability: float) -> dict[str, Tensor]:
    """Hide each present modality of each example with `probability`, independently, but never the last.

    Where the draw would hide all, one of the present modalities, drawn at random, is kept.
    """
    if not probability or len(present) < 2:
        return present
    present_BM = torch.stack(list(present.values()), dim=1)
    score_BM = torch.rand(present_BM.shape, device=present_BM.device).masked_fill(~present_BM, -1)
    best_B1 = score_BM.argmax(1, keepdim=True)
    kept_BM = (score_BM >= probability).scatter(1, best_B1, True) & present_BM
    return dict(zip(present, kept_BM.unbind(1), strict=True))
