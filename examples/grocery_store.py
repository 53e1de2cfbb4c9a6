"""Grocery Store Dataset as JSON Lines: each photo twice, with its product's description and with another's.

The descriptions that do not fit are those of the same split's photos, dealt anew: each stands as often beside photos
that it fits as beside others, so that text alone tells nothing.

Usage: python examples/grocery_store.py FOLDER > batch.jsonl
"""

import csv
import json
import random
import sys
from pathlib import Path

folder = Path(sys.argv[1]) / "dataset"
with (folder / "classes.csv").open(encoding="utf-8") as file:
    classes = list(csv.DictReader(file))
texts = [(folder / row["Product Description Path (str)"].lstrip("/")).read_text(encoding="utf-8") for row in classes]
names = [row["Class Name (str)"] for row in classes]


def deal_others(own: list[int]) -> list[int]:
    """Shuffle classes until none stands where it stood: where one does, it changes places with any that may."""
    dealt, chance = random.Random(0).sample(own, len(own)), random.Random(1)
    for place, number in enumerate(own):
        while dealt[place] == number:
            other = chance.randrange(len(own))
            if number not in (dealt[other], own[other]):
                dealt[place], dealt[other] = dealt[other], dealt[place]
    return dealt


for split in ("train", "val", "test"):
    with (folder / f"{split}.txt").open(encoding="utf-8") as file:
        photos = [(path, int(fine)) for path, fine, _ in csv.reader(file, skipinitialspace=True)]
    others = deal_others([number for _, number in photos])
    for (path, number), other in zip(photos, others, strict=True):
        for described, target in ((number, "match"), (other, "mismatch")):
            row = {
                "id": f"{path} {target}", "group": path, "split": split, "text": texts[described].strip(),
                "image": f"dataset/{path}", "target": target, "photo": names[number], "described": names[described],
            }  # fmt: skip
            print(json.dumps(row, ensure_ascii=False))
