"""SROIE receipts as JSON Lines: a scan, the text read from it line by line, and where the four fields stand in it.

A field is looked for by its letters and digits alone: addresses are wrapped, spacing and punctuation differ. The first
place counts; of a total, whose amount often stands elsewhere too, every place beside the word, as lines stand in the
picture. `boxes` has for each line [start, end, left, top, right, bottom]: characters of the text, thousandths of the
picture's sides.

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


def find(field: str, value: str, text: str, boxes: list[list[int]]) -> list[tuple[int, int]]:
    """Return where a field stands."""
    letters = r"[\W_]*".join(map(re.escape, letters_of(value)))
    if not letters:
        return []
    found = re.finditer(rf"(?<![0-9])(?<![0-9][.,]){letters}(?![0-9])", text, re.IGNORECASE)
    spans = [match.span() for match in found]
    return (find_totals(spans, text, boxes) if field == "total" else []) or spans[:1]


def find_totals(spans: list[tuple[int, int]], text: str, boxes: list[list[int]]) -> list[tuple[int, int]]:
    """Return those that stand beside the word total; where none does, the first that follows it."""
    words = list(re.finditer(r"(?<!sub)(?<!sub[ -])total", text, re.IGNORECASE))
    rows = [box_of(word.start(), boxes) for word in words]
    beside = [span for span in spans if any(are_beside(box_of(span[0], boxes), row) for row in rows)]
    return beside or [span for span in spans if words and span[0] > words[0].end()][:1]


def box_of(character: int, boxes: list[list[int]]) -> list[int]:
    """Return the box of the line that a character is in."""
    return next(box for box in boxes if box[0] <= character < box[1])


def are_beside(one: list[int], other: list[int]) -> bool:
    """Tell whether the middle of one box's height is within the other's."""
    (top, bottom), (upper, lower) = one[3::2], other[3::2]
    return upper <= (top + bottom) / 2 <= lower or top <= (upper + lower) / 2 <= bottom


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
    spans = [(*span, field) for field, value in fields.items() for span in find(field, value, text, boxes)]
    row = {
        "id": name, "group": letters_of(fields["company"]).upper(), "text": text, "image": f"img_1000px/{name}.jpg",
        "target": spans, "fields": fields, "boxes": boxes,
    }  # fmt: skip
    print(json.dumps(row, ensure_ascii=False))
