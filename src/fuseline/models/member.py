"""FusionModel: encoders, fusion, head. One member of the ensemble, on one modality or on several.

Shape letters: B batch, W words, L labels, U units (rows; where words are scored, words), T tokens of any modality,
C classes, D feature size.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from fuseline.inputs import own_inputs
from fuseline.inputs.base import flag, vectors
from fuseline.inputs.boxes import BOXES, NOWHERE
from fuseline.models.crf import Crf
from fuseline.models.encoders import build_encoder
from fuseline.models.encoders.base import Encoded
from fuseline.models.fusion import FUSIONS, Fused, Fusion
from fuseline.models.losses import cross_entropy
from fuseline.models.modes import EncodersModel, in_evaluation
from fuseline.models.units import by_word, repeat, repeat_for_words, word_states, yes_or_no

IGNORED = -100
"""In labels: a word that is not scored. Trainer counts what is not it."""


class FusionConfig(PretrainedConfig):
    """All that rebuilds a FusionModel without its training code's defaults."""

    model_type = "fuseline-fusion"

    def __init__(
        self,
        modalities: list[str] | None = None,
        labels: list[str] | None = None,
        encoders: dict[str, dict[str, Any]] | None = None,
        fusion: str | None = None,
        fusion_options: dict[str, Any] | None = None,
        hidden: int | None = None,
        dropout: float = 0.0,
        modality_dropout: float = 0.0,
        unit: str = "row",
        crf: bool = False,
        **options: Any,
    ) -> None:
        self.modalities = modalities or []
        self.labels = labels or []
        self.encoders = encoders or {}
        self.fusion = fusion
        self.fusion_options = fusion_options or {}
        self.hidden = hidden
        self.dropout = dropout
        self.modality_dropout = modality_dropout
        self.unit = unit
        self.crf = crf
        super().__init__(**options)

    @property
    def words(self) -> bool:
        """Whether words are scored."""
        return self.unit == "word"

    @property
    def layout(self) -> bool:
        """Whether it is seen where tokens stand in the picture."""
        return bool(self.encoders.get("text", {}).get("layout", False))


class FusionModel(EncodersModel):
    """Classify from whichever modalities it was built for; any of them may be missing in an example.

    A missing modality is a presence flag and a learned embedding in place of the encoder's features,
    the same in training, evaluation and export.
    """

    config_class = FusionConfig
    config: FusionConfig
    supports_gradient_checkpointing = False

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        self.encoders = nn.ModuleDict({name: build_encoder(**config.encoders[name]) for name in config.modalities})
        sizes = [int(self.encoders[name].size) for name in config.modalities]  # type: ignore[arg-type]
        self.missing = nn.ParameterDict()
        self.fusion: Fusion | None = None
        if config.fusion is not None:
            assert config.hidden is not None
            self.fusion = FUSIONS[config.fusion](sizes, config.hidden, **config.fusion_options)
            for name, size in zip(config.modalities, sizes, strict=True):
                self.missing[name] = nn.Parameter(torch.zeros(size), requires_grad=self.fusion.embeds_absent)
        self.gamma = 0.0  # of the focal loss, in training only: no part of the model
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(sizes[0] if self.fusion is None else self.fusion.size, len(config.labels))
        self.crf = Crf(len(config.labels)) if config.crf else None
        self.all_tied_weights_keys: dict[str, str] = {}

    def forward(
        self, labels: Tensor | None = None, encoded: Mapping[str, Encoded] | None = None, **inputs: Tensor
    ) -> dict[str, Tensor]:
        """Score every class.

        Args:
            labels: class probabilities, float [B, C]; where words are scored [B, W, C], IGNORED for words that are not
                there; where each label is, [B, L, 2], no and yes. With them the loss is returned too.
            encoded: by modality, what its encoder makes of the batch, where that was found before.
            inputs: those of fuseline.inputs.inputs_of, of the member's modalities at least; flags suffice for those in
                `encoded`, and for those that come as `vectors`.

        Returns:
            `logits` of the shape of labels, zeros for words that are not there, and `loss` where labels are given.
        """
        given = {name: inputs[flag(name)] for name in self.config.modalities}
        present = hide_some(given, self.config.modality_dropout if self.training else 0.0)
        if self.config.words:
            present["text"] = given["text"]  # without it, words are told apart by nothing
        if self.config.layout and BOXES in inputs:
            inputs[BOXES] = hide_boxes(inputs[BOXES], present["image"])
        fused = self.fuse(inputs, present, encoded or {})
        logits = self.head(self.dropout(fused.vector_BD))
        if self.config.words:
            logits = by_word(logits, inputs["words"])
        elif self.config.unit == "label":
            logits = yes_or_no(logits)
        if labels is None:
            return {"logits": logits}
        loss = self.loss(logits, labels)
        return {"loss": loss if fused.penalty is None else loss + fused.penalty, "logits": logits}

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss over the units that are there; shapes as in `forward`."""
        there = labels[..., 0] != IGNORED
        if not there.any():
            return logits.sum() * 0
        if self.crf is not None:
            return self.crf(logits, labels.argmax(-1), there)  # type: ignore[no-any-return]
        return cross_entropy(logits[there], labels[there], self.gamma if self.training else 0.0)

    def fuse(
        self, inputs: Mapping[str, Tensor], present: Mapping[str, Tensor], encoded: Mapping[str, Encoded]
    ) -> Fused:
        """Return the vectors that the head sees, one for each unit."""
        parts = [self.encode(name, inputs, present[name], encoded.get(name)) for name in self.config.modalities]
        if self.config.words:
            parts = [
                word_states(each, inputs["words"]) if name == "text" else repeat_for_words(each, inputs["words"])
                for name, each in zip(self.config.modalities, parts, strict=True)
            ]
        if self.fusion is None:
            return Fused(parts[0].vector_BD)
        present_UM = torch.stack(list(present.values()), dim=1)
        if self.config.words:
            present_UM = repeat(present_UM, inputs["words"].shape[1])
        fused: Fused = self.fusion(parts, present_UM)
        return fused

    def encode(
        self, name: str, inputs: Mapping[str, Tensor], present_B: Tensor, encoded: Encoded | None = None
    ) -> Encoded:
        """Encode one modality, or take it as it was encoded; where it is missing, put its embedding as its only token.

        In training absent rows stay out of the encoder: blank pictures would bend its batch norm.
        """
        encoder = self.encoders[name]
        if vectors(name) in inputs:
            encoded = Encoded.whole(inputs[vectors(name)])
        own = {} if encoded is not None else own_inputs(name, inputs)
        if not self.missing:
            return encoded or run_encoder(encoder, own)
        missing_D: Tensor = self.missing[name]
        if not self.training:
            return fill_absent(encoded or run_encoder(encoder, own), present_B, missing_D)
        if not present_B.any():
            return Encoded.whole(missing_D.expand(len(present_B), -1))
        if encoded is None:
            there = run_encoder(encoder, {key: tensor[present_B] for key, tensor in own.items()})
        else:
            there = Encoded(*(part[present_B] for part in encoded))
        return spread(there, present_B, missing_D)


def hide_boxes(boxes_BS4: Tensor, present_B: Tensor) -> Tensor:
    """Take the places of tokens from rows whose picture is missing: they are a part of what it shows."""
    return torch.where(present_B[:, None, None], boxes_BS4, torch.full_like(boxes_BS4, NOWHERE[0]))


def fill_absent(encoded: Encoded, present_B: Tensor, missing_D: Tensor) -> Encoded:
    """Put the learned embedding where a modality is missing."""
    first_T = torch.arange(encoded.mask_BT.shape[1], device=present_B.device) == 0
    return Encoded(
        torch.where(present_B[:, None], encoded.vector_BD, missing_D),
        torch.where(present_B[:, None, None], encoded.states_BTD, missing_D),
        encoded.mask_BT & present_B[:, None] | first_T & ~present_B[:, None],  # onnxruntime 1.31 has no Where on bool
    )


def spread(encoded: Encoded, present_B: Tensor, missing_D: Tensor) -> Encoded:
    """Deal the encoded rows to those that are present; the others get the learned embedding."""
    rows, batch, tokens = present_B.nonzero().squeeze(1), len(present_B), encoded.mask_BT.shape[1]
    first_T = torch.arange(tokens, device=present_B.device) == 0
    return Encoded(
        missing_D.expand(batch, -1).to(encoded.vector_BD.dtype).index_put((rows,), encoded.vector_BD),
        missing_D.expand(batch, tokens, -1).to(encoded.states_BTD.dtype).index_put((rows,), encoded.states_BTD),
        first_T.expand(batch, -1).index_put((rows,), encoded.mask_BT),
    )


def run_encoder(encoder: nn.Module, inputs: Mapping[str, Tensor]) -> Encoded:
    """Encode rows; a single row in training runs as in evaluation, for batch norm cannot learn from one."""
    alone = encoder.training and len(next(iter(inputs.values()))) == 1
    with in_evaluation(encoder) if alone else nullcontext():
        encoded: Encoded = encoder(**inputs)
    return encoded


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
