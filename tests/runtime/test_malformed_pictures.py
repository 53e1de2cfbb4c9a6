"""A malformed picture ends in an error that names its row: no crash, no black picture, no memory spent on a bomb."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from fuseline.errors import DataError
from fuseline.inputs.image import decode_image
from fuseline.runtime import Predictor, Row

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8))


def encode(form: str, image: Image.Image = NOISE, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """Write a chunk of a PNG file, its checksum right."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, pixels: bytes = b"") -> bytes:
    """Write a PNG that declares a size, whatever its pixels are."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def tiff(*entries: tuple[int, int, int, int]) -> bytes:
    """Write a TIFF's head with tags: number, type, count, value."""
    tags = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + tags + struct.pack("<I", 0)


def gif_of_a_broken_frame() -> bytes:
    data = encode("GIF", save_all=True, append_images=[NOISE.rotate(90)])
    start = data.index(b"\x2c", 13 + 3 * 256)
    return data[: start + 30] + b"\0;"


SIZES = [(256, 3, 1, 48), (257, 3, 1, 64), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]
MALFORMED: dict[str, bytes] = {
    "nothing at all": b"",
    "a thousand zeros": bytes(1000),
    "a PNG cut short": encode("PNG")[:-2000],
    "a JPEG cut short": encode("JPEG")[:-400],
    "a JPEG of a head alone": encode("JPEG")[:200],
    "a PNG of wrong checksums": encode("PNG").replace(b"IDAT", b"IDAX"),
    "a PNG without pixels": png(32, 32),
    "a PNG of too few pixels": png(32, 32, pixels=bytes(200)),
    "a PNG of no size": png(0, 0),
    "a PNG whose comment is a bomb": png(
        1, 1, chunk(b"zTXt", b"c\0\0" + zlib.compress(bytes(80_000_000))), pixels=bytes(4)
    ),
    "another format's magic number": b"\x89PNG\r\n\x1a\n" + encode("JPEG"),
    "an animated GIF of a broken frame": gif_of_a_broken_frame(),
    "a WebP cut short": encode("WEBP")[:-600],
    "a WebP of a wrong length": encode("WEBP").replace(b"VP8 ", b"VP8X", 1),
    "a TIFF of 65,535 tags": b"II*\0" + struct.pack("<IH", 8, 65535) + bytes(40),
    "a TIFF whose tag is 4 GB": tiff(*SIZES, (273, 4, 0xFFFFFFFF, 8), (279, 4, 0xFFFFFFFF, 8)),
    "a TIFF whose strip lies outside": tiff(*SIZES, (273, 4, 1, 1 << 30), (278, 3, 1, 64), (279, 4, 1, 3072)),
    "a JPEG 2000 cut short": encode("JPEG2000")[:-3000],
    "an AVIF cut short": encode("AVIF")[:-200],
    "a picture in floating-point numbers": encode("TIFF", Image.fromarray(np.ones((8, 8), np.float32))),
    "an SVG": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>',
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n",
    "a text that is named .png": b"This is no picture.\n" * 50,
    "a page": b"<!doctype html><title>404 Not Found</title>",
}
BOMBS: dict[str, bytes] = {
    "a PNG of 30,000 x 30,000": png(30_000, 30_000),
    "a PNG of 2^31 x 2^31": png(2**31 - 1, 2**31 - 1),
    "a PNG of one line": png(64_000_001, 1),
    "a TIFF of 40,000 x 40,000": tiff((256, 4, 1, 40_000), (257, 4, 1, 40_000), *SIZES[2:], (273, 4, 1, 8),
                                      (278, 4, 1, 40_000), (279, 4, 1, 9)),
    "a BMP of 20,000 x 20,000": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 60, 0, 0, 54, 40, 20_000, 20_000, 1, 24, 0, 0,
                                                     0, 0, 0, 0),
    "a GIF of 65,535 x 65,535": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b",\0\0\0\0"
                                + struct.pack("<HHB", 65535, 65535, 0) + b"\x02\x02D\x01\0;",
}  # fmt: skip


@pytest.fixture(scope="module")
def predictor(bundle: Path) -> Predictor:
    return Predictor(bundle, ["CPUExecutionProvider"], threads=1)


@pytest.mark.parametrize("case", MALFORMED)
def test_ends_in_an_error_that_names_the_row(case: str, predictor: Predictor) -> None:
    with pytest.raises(DataError, match=r"^rows\[1\]: picture cannot be decoded: \S"):
        predictor.predict([Row("the rose"), Row("sea", MALFORMED[case])])
    assert len(MALFORMED) >= 20
    assert predictor.predict(Row("the rose"))  # and it goes on


@pytest.mark.parametrize("case", BOMBS)
def test_is_refused_by_the_size_that_it_declares_before_it_is_decoded(
    case: str, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(DataError, match=r"the row: picture .*(exceeds 64,000,000 pixels|decompression bomb)"):
        predictor.predict({"image": BOMBS[case]})


SHOWN: dict[str, Callable[[], bytes]] = {
    "a broken colour profile": lambda: encode("PNG", icc_profile=b"no profile" * 20),
    "a profile of another kind of colours": lambda: encode("JPEG", NOISE.convert("CMYK"), icc_profile=b"\0" * 300),
    "print colours": lambda: encode("JPEG", NOISE.convert("CMYK"), quality=95),
    "16 bits of grey": lambda: encode("PNG", Image.fromarray(np.asarray(NOISE.convert("L")).astype(np.uint16) << 8)),
    "a palette": lambda: encode("GIF"),
    "a later frame that is broken": lambda: encode("GIF", save_all=True, append_images=[NOISE.rotate(90)])[:-500],
}


@pytest.mark.parametrize("case", SHOWN)
def test_odd_but_sound_pictures_are_seen_as_they_are(case: str) -> None:
    grey = np.asarray(Image.fromarray(decode_image(SHOWN[case]())).convert("L"), dtype=float)
    assert np.corrcoef(grey.ravel(), np.asarray(NOISE.convert("L"), dtype=float).ravel())[0, 1] > 0.9


def test_damaged_tags_are_no_reason_to_warn() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a long description of this picture"
    data = encode("JPEG", exif=exif)
    at = data.index(b"Exif\0\0") + 18
    damaged = data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_image(damaged).shape == (64, 48, 3)
