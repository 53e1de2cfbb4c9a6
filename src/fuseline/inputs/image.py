"""Encoded pictures to pixels.

Shape letters: B batch, P pictures of a row, H height, W width.
"""

from __future__ import annotations

import io
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fuseline.errors import DataError
from fuseline.inputs.base import Array, Folder, Input, Reader

MAX_PIXELS = 64_000_000
"""Pictures above this many pixels are refused before they are decoded (decompression bombs)."""

SUFFIXES = {
    "BMP": (".bmp",), "GIF": (".gif",), "JPEG": (".jfif", ".jpe", ".jpeg", ".jpg"),
    "JPEG2000": (".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx"), "PNG": (".apng", ".png"),
    "PPM": (".pbm", ".pgm", ".pnm", ".ppm"), "TIFF": (".tif", ".tiff"), "WEBP": (".webp",),
}  # fmt: skip
"""By format, the suffixes of its files, where a folder is looked through. Pillow would tell them once it has loaded
all its formats; its .pfm is left out: floating-point numbers, which are refused."""
FORMATS = tuple(SUFFIXES)
"""Pillow's names of the formats that are read, whatever a file's suffix says: those whose heads tell the truth about
what is decoded. It knows more: for PostScript it starts Ghostscript, a program that runs what the file says; ICO and
ICNS decode the picture inside as soon as they are opened; an AVIF of 777 bytes that said 16 x 16 px took 92 MB."""
TILE = (322, 323)
"""TIFF's tags of a tile's width and height."""

Picture = NDArray[np.uint8]
"""[H, W, 3]."""
Shown = bytes | Image.Image | np.ndarray
"""A picture as it is given: encoded, opened by Pillow, or an array."""
MORE = "more_images"
"""Column of the pictures after an example's first, which stands in `image`; null where there are none."""
NO_PICTURE: Picture = np.zeros((1, 1, 3), dtype=np.uint8)


SETTINGS = "image.json"
"""What a reader of several pictures leaves beside the graph; without it, rows have one."""
PIXELS = Input("pixels", "uint8", ("batch", "height", "width", 3), "RGB")
SEVERAL_PIXELS = Input("pixels", "uint8", ("batch", "pictures", "height", "width", 3), "RGB")
COUNTS = Input("picture_counts", "int64", ("batch",), "pictures of each row that count", traced=2)


@dataclass(frozen=True)
class Square:
    """What pictures of different sizes are brought to, where they have to be of one: arguments of preprocess.resize."""

    side: int
    shorter: int | None
    kernel: str


class ImageReader(Reader):
    """Decodes; an item is uint8 [H, W, 3], and those of one call are of one size.

    Args:
        several: given, rows may have several pictures: an item is uint8 [P, H, W, 3]. Those of a row that are of
            different sizes become squares; all others stay as they are, for the graph.
    """

    name = "image"
    column = "image.path"
    inputs = (PIXELS,)

    def __init__(self, several: Square | None = None) -> None:
        self.several = several

    def read(self, value: Shown | Sequence[Shown]) -> Picture:
        files = [value] if isinstance(value, Shown) else list(value)
        if self.several is None:
            if len(files) > 1:
                raise DataError(
                    f"{len(files)} pictures are given; the model takes one of each row: leave one, or train with "
                    "encoders.image.several"
                )
            return read_image(files[0])
        pictures = [self._decode(data, number, len(files)) for number, data in enumerate(files, start=1)]
        if len({picture.shape for picture in pictures}) > 1:
            pictures = [to_square(picture, self.several) for picture in pictures]
        return np.stack(pictures)

    @staticmethod
    def _decode(data: Shown, number: int, of: int) -> Picture:
        try:
            return read_image(data)
        except DataError as error:
            raise DataError(f"picture {number} of {of}: {error}") from error

    def collate(self, items: Sequence[Picture | None]) -> dict[str, Array]:
        if self.several is not None:
            return stack_several(items)
        blank = np.zeros(next((item.shape for item in items if item is not None), NO_PICTURE.shape), dtype=np.uint8)
        return {"pixels": np.stack([blank if item is None else item for item in items])}

    def likeness(self, item: Picture | None) -> tuple[int, ...]:
        return NO_PICTURE.shape if item is None else item.shape

    def weigh(self, item: Picture) -> int:
        return item.nbytes

    def save(self, folder: Path) -> None:
        if self.several is not None:
            text = json.dumps(asdict(self.several), indent=2, sort_keys=True)
            (folder / SETTINGS).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def open(cls, folder: Folder) -> Self:
        file = folder / SETTINGS
        return cls(Square(**json.loads(file.read_bytes())) if file.is_file() else None)

    def describe(self) -> str:
        return "" if self.several is None else f"several {self.several}"


def stack_several(items: Sequence[Picture | None]) -> dict[str, Array]:
    """Make `pixels` [B, P, H, W, 3] and `picture_counts` [B] of items [P, H, W, 3]; what fills up does not count."""
    counts_B = np.array([0 if item is None else len(item) for item in items], dtype=np.int64)
    size = next((item.shape[1:] for item in items if item is not None), NO_PICTURE.shape)
    pixels_BPHW3 = np.zeros((len(items), max(1, counts_B.max(initial=0)), *size), dtype=np.uint8)
    for row_PHW3, item in zip(pixels_BPHW3, items, strict=True):
        if item is not None:
            row_PHW3[: len(item)] = item
    return {"pixels": pixels_BPHW3, "picture_counts": counts_B}


def pictures_of(row: Mapping[str, Any]) -> list[bytes] | None:
    """Return the encoded pictures of a row of a prepared file or of a shard, as Hugging Face datasets keeps them.

    None where the row has none.
    """
    if row["image"] is None:
        return None
    return [file["bytes"] for file in (row["image"], *(row.get(MORE) or ()))]


def to_square(picture: Picture, square: Square) -> Picture:
    """Resize as preprocess.resize does, with antialiasing, to whole grey levels."""
    height, width = picture.shape[:2]
    kernel = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[square.kernel]
    if square.shorter is None:
        sized = Image.fromarray(picture).resize((square.side, square.side), kernel)
        return np.asarray(sized, dtype=np.uint8)
    shortest = min(height, width)
    wide, high = (length * square.shorter // shortest for length in (width, height))
    left, top = ((length - square.side) // 2 for length in (wide, high))
    sized = Image.fromarray(picture).resize((wide, high), kernel)
    return np.asarray(sized.crop((left, top, left + square.side, top + square.side)), dtype=np.uint8)


def read_image(value: Shown) -> Picture:
    """Return a picture's pixels, uint8 [H, W, 3]: encoded ones as `decode_image` does, others by the same rules.

    Args:
        value: an array is uint8 [H, W], [H, W, 3] or, with transparency, [H, W, 4].
    """
    if isinstance(value, bytes):
        return decode_image(value)
    if isinstance(value, np.ndarray):
        if value.dtype != np.uint8 or value.ndim not in (2, 3) or value.shape[2:] not in ((), (3,), (4,)):
            raise DataError(
                f"picture is {value.dtype} {list(value.shape)}; expected uint8 [height, width], [height, width, 3] or "
                "[height, width, 4]"
            )
        if not value.size:
            raise DataError(f"picture holds no pixels: {list(value.shape)}")
        value = Image.fromarray(value)
    with _decoding():
        return _to_pixels(value)


def decode_image(data: bytes) -> Picture:
    """Decode a picture to uint8 [H, W, 3]: upright by its EXIF tag, transparency laid on white.

    Raises:
        DataError: the bytes are not a whole picture, or it is larger than MAX_PIXELS.
    """
    with _decoding(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        return _to_pixels(image)


@contextmanager
def _decoding() -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # of damaged tags; damaged pixels are errors
            yield
    except UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise DataError(
            f"picture cannot be decoded: its bytes are of no known picture format; expected {known}"
        ) from None
    except (
        OSError,
        SyntaxError,
        ValueError,
        RuntimeError,
        Image.DecompressionBombError,
    ) as error:
        raise DataError(f"picture cannot be decoded: {error}") from error


def _to_pixels(image: Image.Image) -> Picture:
    if (pixels := pixels_of(image)) > MAX_PIXELS:
        which = "picture" if pixels == image.width * image.height else "tile of a picture"
        raise DataError(f"{which} of {image.width} x {image.height} px exceeds {MAX_PIXELS:,} pixels")
    return np.asarray(_on_white(ImageOps.exif_transpose(image)), dtype=np.uint8)


def pixels_of(image: Image.Image) -> int:
    """Return how many pixels an opened picture is decoded to: a TIFF's tile may be larger than the picture."""
    tags = getattr(image, "tag_v2", {})
    tile = [side for side in map(tags.get, TILE) if isinstance(side, int)]
    return max(image.width * image.height, math.prod(tile) if len(tile) == len(TILE) else 0)


def is_deep(data: bytes) -> bool:
    """Tell whether a picture that can be decoded has more than 8 bits of grey."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        return image.mode.startswith("I")


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range; expected 8 or 16 bits")
    if image.mode.startswith("I"):  # Pillow would clip 16 bits of grey at 255: almost all white
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
