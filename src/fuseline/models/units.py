"""From rows to the units that are scored: words, where a task scores words, or labels.

Each word is then an example of its own: its text is the state of its first token, its other modalities are the row's,
so that every fusion works on words as it does on rows. Labels of a row share all up to the head.
Shape letters: B batch, W words, L labels, U units of all rows, T tokens of any modality, D feature size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fuseline.models.encoders.base import Encoded


def word_states(encoded: Encoded, words_BW: Tensor) -> Encoded:
    """Make one example of each word, [B * W, …]; words without a token get the first token's state.

    Args:
        words_BW: each word's first token, below 0 for none.
    """
    index_BW1 = words_BW.clamp(min=0)[:, :, None]
    states_BWD = encoded.states_BTD.gather(1, index_BW1.expand(-1, -1, encoded.states_BTD.shape[2]))
    return Encoded.whole(states_BWD.flatten(0, 1))


def repeat_for_words(encoded: Encoded, words_BW: Tensor) -> Encoded:
    """Give each word of a row what the row has, [B * W, …]."""
    return Encoded(*(repeat(tensor, words_BW.shape[1]) for tensor in encoded))


def repeat(tensor_B: Tensor, units: int) -> Tensor:
    """Repeat each row, [B, …], for each of its units, [U, …]."""
    return tensor_B[:, None].expand(-1, units, *tensor_B.shape[1:]).flatten(0, 1)


def yes_or_no(logits_BL: Tensor) -> Tensor:
    """Set each label's logit, the log of its odds, beside that of its contrary, 0, [B, L, 2]."""
    return torch.stack([torch.zeros_like(logits_BL), logits_BL], dim=-1)


def by_word(tensor_U: Tensor, words_BW: Tensor) -> Tensor:
    """Give what words have, [B * W, …], the shape [B, W, …]; zeros where a word has no token."""
    tensor_BW = tensor_U.unflatten(0, words_BW.shape)
    seen_BW = (words_BW >= 0).view(*words_BW.shape, *[1] * (tensor_U.ndim - 1))
    return torch.where(seen_BW, tensor_BW, torch.zeros_like(tensor_BW))
