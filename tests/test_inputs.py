"""Raw bytes and strings to arrays, whatever a user may hand in."""

from __future__ import annotations

import io
import random
import struct
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile
from tokenizers import Tokenizer

from fuseline.errors import DataError
from fuseline.inputs import image as inputs
from fuseline.inputs.image import decode_image
from fuseline.inputs.text import TextReader

Paint = Callable[..., bytes]


def encode(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def first_pixel(data: bytes) -> tuple[int, ...]:
    pixels = decode_image(data)
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
    return tuple(pixels[0, 0].tolist())


def test_a_picture_is_height_by_width_by_three(picture: Paint) -> None:
    assert decode_image(picture(width=5, height=9)).shape == (9, 5, 3)


@pytest.mark.parametrize(
    ("mode", "color", "seen"),
    [
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
        ("L", 77, (77, 77, 77)),
        ("LA", (0, 0), (255, 255, 255)),
        ("1", 1, (255, 255, 255)),
    ],
    ids=["colour", "opaque", "transparent", "a fifth of black", "grey", "transparent grey", "bilevel"],
)  # fmt: skip
def test_transparency_is_laid_on_white(picture: Paint, mode: str, color: Any, seen: tuple[int, ...]) -> None:
    assert first_pixel(picture(color, mode=mode)) == seen


def test_a_transparent_palette_entry_is_white() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 9, 9, 9])
    assert first_pixel(encode(image, transparency=1)) == (255, 255, 255)
    assert first_pixel(encode(image)) == (9, 9, 9)


def test_print_colours_are_converted() -> None:
    assert first_pixel(encode(Image.new("CMYK", (4, 4), (0, 0, 0, 255)), "TIFF")) == (0, 0, 0)


@pytest.mark.parametrize(("orientation", "red_at"), [(1, "left"), (3, "right"), (6, "top"), (8, "bottom")])
def test_a_picture_is_upright_by_its_exif_tag(orientation: int, red_at: str) -> None:
    image = Image.new("RGB", (20, 10), "blue")
    image.paste("red", (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = decode_image(encode(image, "PNG", exif=exif)).astype(int)
    height, width = (10, 20) if orientation < 5 else (20, 10)
    assert pixels.shape == (height, width, 3)
    corner = {"left": (height // 2, 0), "right": (height // 2, -1), "top": (0, width // 2), "bottom": (-1, width // 2)}
    assert pixels[corner[red_at]].tolist() == [255, 0, 0]


def test_sixteen_bits_of_grey_keep_their_shades() -> None:
    image = Image.fromarray(np.array([[0, 16384, 32768, 65535]], dtype=np.uint16))
    assert decode_image(encode(image))[0, :, 0].tolist() == [0, 64, 128, 255]


@pytest.mark.parametrize(
    "data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"GIF89a"], ids=["empty", "text", "png", "gif"]
)
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="picture cannot be decoded"):
        decode_image(data)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_picture_is_refused(form: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), form)
    with pytest.raises(DataError, match="picture cannot be decoded"):
        decode_image(data[: int(share * len(data))])


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "DDS", "AVIF"])
def test_damaged_bytes_give_a_picture_or_a_data_error(form: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 12, 3), dtype=np.uint8)
    whole, dice = encode(Image.fromarray(noise), form), random.Random(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on what it could mend
        for _ in range(150):
            data = bytearray(whole)
            data[dice.randrange(len(data))] = dice.randrange(256)
            try:
                assert decode_image(bytes(data)).shape[2] == 3
            except DataError:
                continue


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(
    picture: Paint, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = picture(width=10, height=10)
    monkeypatch.setattr(inputs, "MAX_PIXELS", 99)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(DataError, match="picture of 10 x 10 px exceeds 99 pixels"):
        decode_image(data)


def ico(inside: bytes) -> bytes:
    """Write an icon that says 16 x 16, whatever it holds."""
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inside), 22) + inside


def icns(inside: bytes) -> bytes:
    return b"icns" + struct.pack(">I", 16 + len(inside)) + b"ic07" + struct.pack(">I", 8 + len(inside)) + inside


def avif(image: Image.Image) -> bytes:
    """Write an AVIF that says 16 x 16."""
    data = encode(image, "AVIF")
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", 16, 16) + data[at + 8 :]


LARGE = Image.new("L", (3000, 3000))
LIARS: dict[str, Callable[[], bytes]] = {
    "an ICO with a large PNG": lambda: ico(encode(LARGE)),
    "an ICNS with a large PNG": lambda: icns(encode(LARGE)),
    "an AVIF": lambda: avif(LARGE),
}


@pytest.mark.parametrize("case", LIARS)
def test_a_format_whose_head_may_lie_about_what_is_decoded_is_not_opened(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = LIARS[case]()
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(DataError, match="no known picture format; expected BMP, GIF, JPEG"):
        decode_image(data)


def tiled(width: int, height: int) -> bytes:
    """Write a TIFF of 16 x 16 px whose only tile is larger."""
    data = zlib.compress(bytes(width * height))
    tags = [(256, 16), (257, 16), (258, 8), (259, 8), (262, 1), (277, 1), (322, width), (323, height), (324, 134),
            (325, len(data))]  # fmt: skip
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, n) for tag, n in tags)
    return head + bytes(4) + data


def test_a_tile_that_is_larger_than_its_picture_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decode_image(tiled(320, 160)).shape == (16, 16, 3)
    monkeypatch.setattr(inputs, "MAX_PIXELS", 320 * 160 - 1)
    with pytest.raises(DataError, match="tile of a picture of 16 x 16 px exceeds"):
        decode_image(tiled(320, 160))
    assert decode_image(tiled(16, 16)).shape == (16, 16, 3)


def test_a_picture_of_just_so_many_pixels_is_accepted(picture: Paint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_PIXELS", 100)
    assert decode_image(picture(width=10, height=10)).shape == (10, 10, 3)


def test_texts_are_padded_to_the_longest(tokenizer: Tokenizer) -> None:
    ids, mask = TextReader(tokenizer).collate(["the rose", "sky"]).values()
    assert ids.dtype == mask.dtype == np.int64
    assert mask.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert ids[1, 3] == 0


def test_long_texts_are_cut(tokenizer: Tokenizer) -> None:
    ids, mask = TextReader(tokenizer).collate(["the rose " * 50]).values()
    assert ids.shape == mask.shape == (1, 12)
    assert ids[0, [0, -1]].tolist() == [2, 3]  # [CLS] and [SEP] stay


def test_a_missing_text_is_encoded_as_the_empty_one(tokenizer: Tokenizer) -> None:
    ids, mask = TextReader(tokenizer).collate([None, ""]).values()
    assert ids.tolist() == [[2, 3], [2, 3]]
    assert mask.tolist() == [[1, 1], [1, 1]]
