"""Raw bytes and strings to arrays: the one path that training, evaluation and serving share.

Shape letters: B batch, S tokens, H height, W width.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fuseline.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_PIXELS = 64_000_000
"""Pictures above this many pixels are refused before they are decoded (decompression bombs)."""

MODALITIES = ("text", "image")


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """Decode a picture to uint8 [H, W, 3]: upright by its EXIF tag, transparency laid on white.

    Raises:
        DataError: the bytes are not a whole picture, or it is larger than MAX_PIXELS.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise DataError(f"picture of {width} x {height} px exceeds {MAX_PIXELS:,} pixels")
                upright = ImageOps.exif_transpose(image)
                return np.asarray(_on_white(upright), dtype=np.uint8)
    except UnidentifiedImageError:
        raise DataError("picture cannot be decoded: its bytes are of no known picture format") from None
    except (
        OSError,
        SyntaxError,
        ValueError,
        RuntimeError,
        Image.DecompressionBombError,
    ) as error:
        raise DataError(f"picture cannot be decoded: {error}") from error


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range; expected 8 or 16 bits")
    if image.mode.startswith("I"):  # Pillow would clip 16 bits of grey at 255: almost all white
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


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
