"""JointModel: two encoders that learn from pairs what their items have to do with each other, before there are labels.

Shape letters: B batch, S tokens of a text, T parts of the other modality's item, D joint size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PretrainedConfig

from fuseline.inputs import own_inputs
from fuseline.models.encoders import build_encoder
from fuseline.models.encoders.base import Encoded, mean_over
from fuseline.models.fusion import CrossLayer
from fuseline.models.member import run_encoder
from fuseline.models.modes import EncodersModel

START_SCALE = 1 / 0.07
"""What similarities are multiplied by at first, as Radford et al. 2021; it is trained."""
LARGEST_SCALE = 100.0


class JointConfig(PretrainedConfig):
    """All that rebuilds a JointModel."""

    model_type = "fuseline-joint"

    def __init__(
        self,
        modalities: list[str] | None = None,
        encoders: dict[str, dict[str, Any]] | None = None,
        objectives: dict[str, float] | None = None,
        hidden: int = 1,
        heads: int = 1,
        mask: float = 0.0,
        mask_token: int | None = None,
        special_tokens: list[int] | None = None,
        **options: Any,
    ) -> None:
        self.modalities = modalities or []
        self.encoders = encoders or {}
        self.objectives = objectives or {}
        self.hidden = hidden
        self.heads = heads
        self.mask = mask
        self.mask_token = mask_token
        self.special_tokens = special_tokens or []
        super().__init__(**options)


class JointModel(EncodersModel):
    """Encoders of texts and of one other modality, with what their objectives need; only the encoders are kept.

    Each objective that has a weight above 0 is computed, and they are summed by their weights.

    - contrast: which item of the batch belongs to this text, and the other way round (Radford et al. 2021).
    - match: does this item belong to this text? What is wrong is drawn from what contrast finds similar (Li et al.
      2021, section 3.2).
    - masked_words: which word was hidden, with the other modality's parts in sight (Li et al. 2021, as match).
    """

    config_class = JointConfig
    config: JointConfig

    def __init__(self, config: JointConfig) -> None:
        super().__init__(config)
        self.encoders = nn.ModuleDict({name: build_encoder(**config.encoders[name]) for name in config.modalities})
        self.other = next(name for name in config.modalities if name != "text")
        sizes = {name: int(self.encoders[name].size) for name in config.modalities}  # type: ignore[arg-type]
        self.project = nn.ModuleDict({name: nn.Linear(size, config.hidden) for name, size in sizes.items()})
        self.enter = nn.ModuleDict(
            {name: nn.Sequential(nn.LayerNorm(size), nn.Linear(size, config.hidden)) for name, size in sizes.items()}
        )
        self.look = CrossLayer(config.hidden, config.heads)
        self.matches = nn.Linear(config.hidden, 2)
        words: nn.Embedding = self.encoders["text"].backbone.get_input_embeddings()  # type: ignore[operator, union-attr]
        self.say = nn.Sequential(
            nn.LayerNorm(config.hidden), nn.Linear(config.hidden, words.embedding_dim), nn.GELU(),
            nn.LayerNorm(words.embedding_dim),
        )  # fmt: skip
        self.word_bias = nn.Parameter(torch.zeros(words.num_embeddings))
        self.log_scale = nn.Parameter(torch.tensor(START_SCALE).log())
        self.all_tied_weights_keys: dict[str, str] = {}

    def forward(self, labels: Tensor | None = None, **inputs: Tensor) -> dict[str, Tensor]:
        """Return the `loss`, and as `logits`, bool [B], whether each text's own item is the most similar of the batch.

        Args:
            labels: of no account.
            inputs: those of fuseline.inputs.inputs_of, of rows that have both modalities.
        """
        text, other = (run_encoder(self.encoders[name], own_inputs(name, inputs)) for name in ("text", self.other))
        similar_BB = self.compare(text, other)
        own_B = torch.arange(len(similar_BB), device=similar_BB.device)
        weights = self.config.objectives
        losses: dict[str, Tensor] = {}
        if weights["contrast"]:
            losses["contrast"] = (F.cross_entropy(similar_BB, own_B) + F.cross_entropy(similar_BB.T, own_B)) / 2
        if weights["match"] and len(own_B) > 1:
            losses["match"] = self.match(text, other, similar_BB.detach())
        if weights["masked_words"]:
            losses["masked_words"] = self.guess_words(inputs, other)
        loss = sum((weights[name] * each for name, each in losses.items()), similar_BB.sum() * 0)
        return {"loss": loss, "logits": similar_BB.argmax(1) == own_B}

    def compare(self, text: Encoded, other: Encoded) -> Tensor:
        """Return how similar each text (rows) is to each item (columns), float [B, B]."""
        text_BD = F.normalize(self.project["text"](text.vector_BD), dim=1)
        other_BD = F.normalize(self.project[self.other](other.vector_BD), dim=1)
        return text_BD @ other_BD.T * self.log_scale.exp().clamp(max=LARGEST_SCALE)

    def match(self, text: Encoded, other: Encoded, similar_BB: Tensor) -> Tensor:
        """Tell pairs that belong together from texts with a wrong item, and items with a wrong text."""
        wrong_other_B, wrong_text_B = self._draw_wrong(similar_BB), self._draw_wrong(similar_BB.T)
        texts = _stack(text, text, _take(text, wrong_text_B))
        others = _stack(other, _take(other, wrong_other_B), other)
        logits = self.matches(mean_over(self.see(texts, others), texts.mask_BT))
        truth = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
        truth[: len(similar_BB)] = 1
        return F.cross_entropy(logits, truth)

    def _draw_wrong(self, similar_BB: Tensor) -> Tensor:
        """Return for each row a column other than its own: drawn by similarity in training, else the most similar."""
        scores_BB = similar_BB.masked_fill(torch.eye(len(similar_BB), dtype=torch.bool, device=similar_BB.device), -1e4)
        return torch.multinomial(scores_BB.softmax(1), 1).squeeze(1) if self.training else scores_BB.argmax(1)

    def guess_words(self, inputs: Mapping[str, Tensor], other: Encoded) -> Tensor:
        """Hide words and have them guessed; as ever, 8 in 10 as the mask, 1 as another word, 1 as itself."""
        ids_BS, hidden_BS = self.hide(inputs["input_ids"], inputs["attention_mask"])
        masked = run_encoder(self.encoders["text"], own_inputs("text", {**inputs, "input_ids": ids_BS}))
        words_VD: Tensor = self.encoders["text"].backbone.get_input_embeddings().weight  # type: ignore[operator, union-attr]
        if not hidden_BS.any():
            return masked.vector_BD.sum() * 0
        logits = self.say(self.see(masked, other)[hidden_BS]) @ words_VD.T + self.word_bias
        return F.cross_entropy(logits, inputs["input_ids"][hidden_BS])

    def hide(self, ids_BS: Tensor, mask_BS: Tensor) -> tuple[Tensor, Tensor]:
        """Return ids with some words hidden, and which they are, bool [B, S]; in evaluation the same ones each time."""
        special = torch.tensor(self.config.special_tokens, device=ids_BS.device)
        generator = None if self.training else torch.Generator().manual_seed(0)
        chance_BS, kind_BS = (torch.rand(ids_BS.shape, generator=generator).to(ids_BS.device) for _ in range(2))
        other_BS = torch.randint(len(self.word_bias), ids_BS.shape, generator=generator).to(ids_BS.device)
        hidden_BS = (chance_BS < self.config.mask) & mask_BS.bool() & ~torch.isin(ids_BS, special)
        shown_BS = ids_BS.masked_fill(hidden_BS & (kind_BS < 0.8), self.config.mask_token or 0)
        return torch.where(hidden_BS & (kind_BS >= 0.9), other_BS, shown_BS), hidden_BS

    def see(self, text: Encoded, other: Encoded) -> Tensor:
        """Let the tokens of texts look at the parts of items, [B, S, D]."""
        states = (self.enter[name](each.states_BTD) for name, each in (("text", text), (self.other, other)))
        seen: Tensor = self.look(*states, other.mask_BT)
        return seen


def _take(encoded: Encoded, rows_B: Tensor) -> Encoded:
    return Encoded(*(part[rows_B] for part in encoded))


def _stack(*encoded: Encoded) -> Encoded:
    return Encoded(*(torch.cat(parts) for parts in zip(*encoded, strict=True)))
