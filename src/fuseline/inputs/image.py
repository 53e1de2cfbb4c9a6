"""Encoded pictures to pixels.

Shape letters: B batch, H height, W width.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fuseline.errors import DataError
from fuseline.inputs.base import Array, Input, Reader

MAX_PIXELS = 64_000_000
"""Pictures above this many pixels are refused before they are decoded (decompression bombs)."""

FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names of the formats that are read, whatever a file's suffix says. It knows more: for PostScript it starts
Ghostscript, a program that runs what the file says."""

Picture = NDArray[np.uint8]
"""[H, W, 3]."""
NO_PICTURE: Picture = np.zeros((1, 1, 3), dtype=np.uint8)


class ImageReader(Reader):
    """Decodes; an item is uint8 [H, W, 3], and those of one call are of one size."""

    name = "image"
    column = "image.path"
    inputs = (Input("pixels", "uint8", ("batch", "height", "width", 3), "RGB"),)

    def read(self, value: bytes) -> Picture:
        return decode_image(value)

    def collate(self, items: Sequence[Picture | None]) -> dict[str, Array]:
        blank = np.zeros(next((item.shape for item in items if item is not None), NO_PICTURE.shape), dtype=np.uint8)
        return {"pixels": np.stack([blank if item is None else item for item in items])}

    def likeness(self, item: Picture | None) -> tuple[int, ...]:
        return NO_PICTURE.shape if item is None else item.shape

    def weigh(self, item: Picture) -> int:
        return item.nbytes

    @classmethod
    def open(cls, folder: Path) -> Self:
        return cls()


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """Decode a picture to uint8 [H, W, 3]: upright by its EXIF tag, transparency laid on white.

    Raises:
        DataError: the bytes are not a whole picture, or it is larger than MAX_PIXELS.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
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
