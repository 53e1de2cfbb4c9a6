"""SROIE receipts as JSON Lines: a scan, the text read from it line by line, and where the four fields stand in it.

A field is looked for by its letters and digits alone: addresses are wrapped, spacing and punctuation differ. `boxes`
has for each line [start, end, left, top, right, bottom]: characters of the text, thousandths of the picture's sides.

Usage: python examples/sroie_receipts.py FOLDER > batch.jsonl
"""

import csv
import json
import re
import sys
from pathlib import Path

folder = Path(sys.argv[1])


def letters_of(value: str) -> str:
    """Return letters and digits alone."""
    return "".join(filter(str.isalnum, value))


def find(field: str, value: str, text: str) -> tuple[int, int] | None:
    """Return where a field stands first; a total that follows the word comes before any other."""
    letters = r"[\W_]*".join(map(re.escape, letters_of(value)))
    if not letters:
        return None
    found = list(re.finditer(rf"(?<![0-9])(?<![0-9][.,]){letters}(?![0-9])", text, re.IGNORECASE))
    if field == "total" and (word := re.search(r"(?<!sub)(?<!sub[ -])total", text, re.IGNORECASE)):
        found = [match for match in found if match.start() > word.end()] or found
    return found[0].span() if found else None


with (folder / "sizes.csv").open(encoding="utf-8") as file:
    sizes = {row["id"]: (int(row["orig_w"]), int(row["orig_h"])) for row in csv.DictReader(file)}
for name, (width, height) in sizes.items():
    fields = json.loads((folder / f"key/{name}.json").read_text(encoding="utf-8"))
    text, boxes = "", []
    for line in (folder / f"box/{name}.csv").read_text(encoding="utf-8").splitlines():
        if not line.strip():
            continue
        *corners, words = line.split(",", 8)
        xs, ys = list(map(int, corners[0::2])), list(map(int, corners[1::2]))
        place = [1000 * min(xs) // width, 1000 * min(ys) // height, 1000 * max(xs) // width, 1000 * max(ys) // height]
        text += "\n" if text else ""
        boxes.append([len(text), len(text) + len(words), *place])
        text += words
    spans = {field: find(field, value, text) for field, value in fields.items()}
    row = {
        "id": name, "group": letters_of(fields["company"]).upper(), "text": text, "image": f"img_1000px/{name}.jpg",
        "target": [[*span, field] for field, span in spans.items() if span], "fields": fields, "boxes": boxes,
    }  # fmt: skip
    print(json.dumps(row, ensure_ascii=False))
