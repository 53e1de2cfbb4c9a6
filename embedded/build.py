"""Build the embedded data set: `python embedded/build.py SOURCE_FOLDER [DATA_FOLDER]`.

SOURCE_FOLDER holds records.csv (image, text, label_group, label_subgroup, sibling_key, emoji) and the
pictures it names; README.md beside this file says where they come from.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from fuseline.data.shards import SCHEMA, write_data_set
from fuseline.inputs.image import decode_image

COLORS = 128
"""Colours per picture: flat drawings lose nothing that a person sees, and the set fits in 3 MiB."""


def build(source: Path, target: Path) -> None:
    """Write shard and manifest."""
    with (source / "records.csv").open(encoding="utf-8", newline="") as file:
        rows = sorted((to_example(record, source) for record in csv.DictReader(file)), key=lambda row: row["id"])
    labels = sorted({row["target"] for row in rows})
    write_data_set(target, "noto-emoji-groups", "classification", labels, [pa.Table.from_pylist(rows, SCHEMA)])


def to_example(record: dict[str, str], source: Path) -> dict[str, Any]:
    """Turn one record into an example."""
    name = Path(record["image"]).stem.removeprefix("emoji_")
    return {
        "id": name,
        "group": record["sibling_key"],
        "text": record["text"],
        "image": {"bytes": reduce(source / record["image"]), "path": f"{name}.png"},
        "target": record["label_group"],
        "meta": json.dumps({"subgroup": record["label_subgroup"], "emoji": record["emoji"]}, ensure_ascii=False),
        "source": "noto-emoji-groups",
    }


def reduce(path: Path) -> bytes:
    """Lay a picture on white and reduce its colours."""
    picture = Image.fromarray(decode_image(path.read_bytes()))
    buffer = io.BytesIO()
    picture.quantize(COLORS, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "data"))
