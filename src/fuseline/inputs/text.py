"""Texts to token ids.

Shape letters: B batch, S tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from fuseline.inputs.base import Array, Input, Reader

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER = "tokenizer.json"


class TextReader(Reader):
    """Tokenizes; an item is the text itself.

    Args:
        tokenizer: with cutting and padding set.
    """

    name = "text"
    column = "text"
    inputs = (
        Input("input_ids", "int64", ("batch", "tokens"), traced=1),
        Input("attention_mask", "int64", ("batch", "tokens"), traced=1),
    )
    files = (TOKENIZER,)

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def read(self, value: str) -> str:
        return value

    def collate(self, items: Sequence[str | None]) -> dict[str, Array]:
        ids_BS, mask_BS = encode_texts(self.tokenizer, items)
        return {"input_ids": ids_BS, "attention_mask": mask_BS}

    def save(self, folder: Path) -> None:
        self.tokenizer.save(str(folder / TOKENIZER))

    @classmethod
    def open(cls, folder: Path) -> Self:
        from tokenizers import Tokenizer  # here: whoever only looks at pictures does not need it

        return cls(Tokenizer.from_file(str(folder / TOKENIZER)))

    def describe(self) -> str:
        return str(self.tokenizer.to_str())


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str | None]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tokenize to ids and attention mask, int64 [B, S], padded to the longest text.

    A missing text is encoded as the empty string: its presence flag, not its tokens, tells the model.
    """
    encodings = tokenizer.encode_batch([text or "" for text in texts])
    ids_BS = np.array([encoding.ids for encoding in encodings], dtype=np.int64)
    mask_BS = np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64)
    if not ids_BS.size:  # without special tokens, as in GPT's tokenizers, empty texts have no token at all
        pad = (tokenizer.padding or {}).get("pad_id", 0)
        ids_BS, mask_BS = np.full((len(texts), 1), pad), np.zeros((len(texts), 1), dtype=np.int64)
    return ids_BS, mask_BS
