"""Texts to token ids, and to words where these are what is scored.

Shape letters: B batch, S tokens, W words.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from fuseline.inputs.base import Array, Folder, Input, Reader
from fuseline.inputs.boxes import BOXES, SIDE, Placed, place_tokens, stack_places

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

TOKENIZER = "tokenizer.json"
WORDS = "words.json"
LAYOUT = "layout.json"
"""What a reader with layout leaves beside the graph."""


class TextReader(Reader):
    """Tokenizes; an item is the text itself, or Placed.

    Args:
        tokenizer: with cutting and padding set.
        pattern: what a word is, of a task that scores words; the inputs are then joined by `words`.
        layout: whether tokens are placed in the picture; the inputs are then joined by `boxes`.
    """

    name = "text"
    column = "text"
    inputs = (
        Input("input_ids", "int64", ("batch", "tokens"), traced=1),
        Input("attention_mask", "int64", ("batch", "tokens"), traced=1),
    )
    files = (TOKENIZER,)

    def __init__(self, tokenizer: Tokenizer, pattern: str | None = None, layout: bool = False) -> None:
        self.tokenizer, self.pattern, self.layout = tokenizer, pattern, layout

    def read(self, value: str | Placed) -> str | Placed:
        return value

    def collate(self, items: Sequence[str | Placed | None]) -> dict[str, Array]:
        texts = [item.text if isinstance(item, Placed) else item for item in items]
        encodings = self.tokenizer.encode_batch([text or "" for text in texts])
        ids_BS, mask_BS = stack(encodings, (self.tokenizer.padding or {}).get("pad_id", 0))
        inputs = {"input_ids": ids_BS, "attention_mask": mask_BS}
        if self.layout:
            boxes = [item.boxes if isinstance(item, Placed) else () for item in items]
            places = [place_tokens(own, each.offsets) for own, each in zip(boxes, encodings, strict=True)]
            inputs[BOXES] = stack_places(places)
        return inputs | self._words(texts, encodings)

    def _words(self, items: Sequence[str | None], encodings: Sequence[Encoding]) -> dict[str, Array]:
        if self.pattern is None:
            return {}
        from fuseline.inputs.words import PADDING, first_tokens, split_words  # as in `open`

        found = [
            first_tokens(split_words(text or "", self.pattern), encoding.offsets)
            for text, encoding in zip(items, encodings, strict=True)
        ]
        words_BW = np.full((len(items), max(1, *map(len, found))), PADDING, dtype=np.int64)
        for row, firsts in zip(words_BW, found, strict=True):
            row[: len(firsts)] = firsts
        return {"words": words_BW}

    def count_tokens(self, items: Sequence[str | None]) -> NDArray[np.int64]:
        """Return how many tokens each text has, int64 [B], padding apart."""
        encodings = self.tokenizer.encode_batch_fast([text or "" for text in items])
        return np.array([sum(encoding.attention_mask) for encoding in encodings], dtype=np.int64)

    def save(self, folder: Path) -> None:
        self.tokenizer.save(str(folder / TOKENIZER))
        if self.pattern is not None:
            document = json.dumps({"pattern": self.pattern}, ensure_ascii=False, indent=2)
            (folder / WORDS).write_text(document + "\n", encoding="utf-8")
        if self.layout:
            (folder / LAYOUT).write_text(json.dumps({"side": SIDE}, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def open(cls, folder: Folder) -> Self:
        from tokenizers import Tokenizer  # here: whoever only looks at pictures does not need it

        words = folder / WORDS
        pattern = json.loads(words.read_bytes())["pattern"] if words.is_file() else None
        tokenizer = Tokenizer.from_buffer((folder / TOKENIZER).read_bytes())
        return cls(tokenizer, pattern, (folder / LAYOUT).is_file())

    def describe(self) -> str:
        return str(self.tokenizer.to_str()) + (self.pattern or "") + (" layout" if self.layout else "")


def stack(encodings: Sequence[Encoding], pad: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Make ids and attention mask, int64 [B, S], of texts that were padded to the longest.

    A missing text was encoded as the empty string: its presence flag, not its tokens, tells the model.
    """
    ids_BS = np.array([encoding.ids for encoding in encodings], dtype=np.int64)
    mask_BS = np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64)
    if not ids_BS.size:  # without special tokens, as in GPT's tokenizers, empty texts have no token at all
        ids_BS, mask_BS = np.full((len(encodings), 1), pad), np.zeros((len(encodings), 1), dtype=np.int64)
    return ids_BS, mask_BS
