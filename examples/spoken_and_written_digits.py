"""Digits, spoken and written, as JSON Lines: each recording beside a picture of the same digit.

Recordings are of the Free Spoken Digit Dataset, pictures those that come with scikit-learn. Each split has pictures of
its own; where it has fewer of a digit than recordings, they come again.

Usage: python examples/spoken_and_written_digits.py FOLDER > batch.jsonl
"""

import base64
import io
import json
import sys
from collections import defaultdict
from itertools import cycle
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

folder = Path(sys.argv[1])
SPLITS = {"theo": "test", "lucas": "val"}
"""By speaker; the others are trained on."""
DEALT = ("test", "val", "train", "train")
"""Where pictures of a digit go, one after the other."""


def to_uri(grey: np.ndarray) -> str:
    """Return a picture, 8 by 8 with 17 shades, as a PNG of 32 by 32."""
    file = io.BytesIO()
    Image.fromarray(np.uint8(grey * 255 / 16)).resize((32, 32), Image.Resampling.BILINEAR).save(file, "png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


digits = load_digits()
pictures = defaultdict(list)
for digit in range(10):
    for number, grey in enumerate(digits.images[digits.target == digit]):
        pictures[DEALT[number % len(DEALT)], str(digit)].append(to_uri(grey))
coming = {key: cycle(own) for key, own in pictures.items()}
for file in sorted((folder / "recordings").glob("*.wav")):
    said, speaker, _ = file.stem.split("_")
    split = SPLITS.get(speaker, "train")
    row = {
        "id": file.stem, "group": speaker, "split": split, "target": said,
        "audio": f"recordings/{file.name}", "image": next(coming[split, said]),
    }  # fmt: skip
    print(json.dumps(row))
