"""A linear-chain conditional random field: tags of a text's words, scored as one sequence.

Source: Lafferty et al. 2001, on a network's scores as in Lample et al. 2016, eq. 1 to 3.
Shape letters: B batch, W words, C tags.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Crf(nn.Module):
    """Scores of beginning with a tag, of steps from one word's tag to the next word's, and of ending with a tag."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.start_C = nn.Parameter(torch.zeros(classes))
        self.steps_CC = nn.Parameter(torch.zeros(classes, classes))
        self.end_C = nn.Parameter(torch.zeros(classes))

    def forward(self, logits_BWC: Tensor, tags_BW: Tensor, there_BW: Tensor) -> Tensor:
        """Return the negative log-likelihood of all texts' tags, by the number of their words.

        Args:
            there_BW: words that are scored; a text's sequence is made of them alone.
        """
        order_BW = (~there_BW).to(torch.int8).argsort(dim=1, stable=True)
        logits_BWC = logits_BWC.gather(1, order_BW[:, :, None].expand_as(logits_BWC))
        tags_BW, there_BW = tags_BW.gather(1, order_BW), there_BW.gather(1, order_BW)
        some_B = there_BW[:, 0]
        logits_BWC, tags_BW, there_BW = logits_BWC[some_B], tags_BW[some_B], there_BW[some_B]
        lost_B = self.log_partition(logits_BWC, there_BW) - self.score(logits_BWC, tags_BW, there_BW)
        return lost_B.sum() / there_BW.sum().clamp(min=1)

    def score(self, logits_BWC: Tensor, tags_BW: Tensor, there_BW: Tensor) -> Tensor:
        """Return the score of each text's tags [B]; words that are there stand first, one at least."""
        own_BW = logits_BWC.gather(2, tags_BW[:, :, None]).squeeze(2)
        steps_BW = self.steps_CC[tags_BW[:, :-1], tags_BW[:, 1:]]
        last_B = tags_BW.gather(1, there_BW.sum(1, keepdim=True) - 1).squeeze(1)
        within_B = (own_BW * there_BW).sum(1) + (steps_BW * there_BW[:, 1:]).sum(1)
        return self.start_C[tags_BW[:, 0]] + within_B + self.end_C[last_B]

    def log_partition(self, logits_BWC: Tensor, there_BW: Tensor) -> Tensor:
        """Return the log of the summed exponentials of all sequences' scores [B], by the forward algorithm."""
        total_BC = self.start_C + logits_BWC[:, 0]
        for word in range(1, logits_BWC.shape[1]):
            reached_BC = (total_BC[:, :, None] + self.steps_CC).logsumexp(1) + logits_BWC[:, word]
            total_BC = torch.where(there_BW[:, word, None], reached_BC, total_BC)
        return (total_BC + self.end_C).logsumexp(1)
