"""Tiny made-up data sets in the layouts that nine published ones come in, with what else lies in their folders."""

from __future__ import annotations

import csv
import io
import itertools
import json
import random
import string
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CHANCE = random.Random(0)


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def words(count: int = 12) -> str:
    """Make a sentence that is like no other."""
    return " ".join("".join(CHANCE.choices(string.ascii_lowercase, k=6)) for _ in range(count))


def picture(form: str = "PNG") -> bytes:
    """Paint a picture that is like no other."""
    pixels = np.random.default_rng(CHANCE.randrange(1 << 30)).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((48, 64)).save(buffer, form)
    return buffer.getvalue()


def sound() -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(CHANCE.randbytes(2 * 1600))
    return buffer.getvalue()


def table(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def easy_vqa(folder: Path) -> int:
    answers = ["circle", "green", "red", "gray", "yes", "teal", "black", "rectangle", "yellow", "triangle", "brown",
               "blue", "no"]  # fmt: skip
    write(folder / "data/answers.txt", "\n".join(answers))
    number = itertools.cycle(answers)
    for split, pictures in {"train": 60, "test": 13}.items():
        questions = []
        for image in range(pictures):
            write(folder / f"data/{split}/images/{image}.png", picture())
            questions += [["what is it?", next(number), image], [words(4), next(number), image]]
        write(folder / f"data/{split}/questions.json", json.dumps(questions))
    return 2 * 73


def free_spoken_digits(folder: Path) -> int:
    for digit, speaker, take in itertools.product(range(10), ["theo", "lucas", "jackson"], range(2)):
        write(folder / f"recordings/{digit}_{speaker}_{take}.wav", sound())
    return 60


def spoken_and_written_digits(folder: Path) -> int:
    return free_spoken_digits(folder.with_name("free-spoken-digits"))


def grocery_store(folder: Path) -> int:
    classes = []
    for number, name in enumerate(["Gala", "Leek", "Oatghurt"]):
        text = f"/iconic-images-and-descriptions/Fruit/{name}/{name}_Description.txt"
        write(folder / "dataset" / text[1:], words() + "\n")
        classes.append({"Class Name (str)": name, "Class ID (int)": number, "Coarse Class Name (str)": name,
                        "Coarse Class ID (int)": number, "Iconic Image Path (str)": f"/iconic-images/{name}.jpg",
                        "Product Description Path (str)": text})  # fmt: skip
    write(folder / "dataset/classes.csv", table(classes))
    for split, count in {"train": 12, "val": 6, "test": 9}.items():
        lines = []
        for place in range(count):
            path = f"{split}/Fruit/{classes[place % 3]['Class Name (str)']}/{place:03}.jpg"
            write(folder / "dataset" / path, picture("JPEG"))
            lines.append(f"{path}, {place % 3}, {place % 3}\n")
        write(folder / f"dataset/{split}.txt", "".join(lines))
    return 2 * 27


def scitldr_a(folder: Path) -> int:
    write(folder / "LICENSE-Apache-2.0.txt", "Apache License\n")
    for split, count in {"train": 12, "dev": 6, "test": 6}.items():
        rows = [
            {"source": [words() + ".", words() + "."], "source_labels": [0, 1], "rouge_scores": [0.1, 0.2],
             "paper_id": f"{split}{number}", "target": [words(), words()][: 1 + number % 2], "title": words(3)}
            for number in range(count)
        ]  # fmt: skip
        write(folder / f"{split}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return 24


def semeval2010_task8(folder: Path) -> int:
    kinds = ["Cause-Effect", "Component-Whole", "Content-Container", "Entity-Destination", "Entity-Origin",
             "Instrument-Agency", "Member-Collection", "Message-Topic", "Product-Producer"]  # fmt: skip
    relations = ["Other", *(f"{kind}({way})" for kind in kinds for way in ("e1,e2", "e2,e1"))]
    number = itertools.count(1)
    write(folder / "README-upstream-with-licence.txt", "Full Dataset Release\n")
    for file, count in {"TRAIN_FILE.TXT": 8 * 19, "TEST_FILE_FULL.TXT": 19}.items():
        write(folder / file, "".join(
            f'{next(number)}\t"{words(4)} <e1>{words(1)}</e1> of <e2>{words(1)}</e2>."\r\n{relations[place % 19]}\r\n'
            "Comment: (a) is satisfied\r\n\r\n"
            for place in range(count)
        ))  # fmt: skip
    return 9 * 19


def sroie_receipts(folder: Path) -> int:
    sizes = []
    for number in range(24):
        name, company = f"{number:03}", f"{words(2).upper()} SDN BHD"
        fields = {"company": company, "date": f"{number + 1:02}/12/2018", "address": "NO.53, JALAN SAGU 18, JOHOR.",
                  "total": f"{number}9.00"}  # fmt: skip
        lines = [company, "TAX INVOICE", "NO.53, JALAN", "SAGU 18, JOHOR", fields["date"], f"RM {number}9.00",
                 "SUB TOTAL 1.00", f"TOTAL: {number}9.00"]  # fmt: skip
        write(folder / f"key/{name}.json", json.dumps(fields))
        write(folder / f"box/{name}.csv", "".join(
            f"72,{25 + 50 * at},326,{25 + 50 * at},326,{64 + 50 * at},72,{64 + 50 * at},{line}\n"
            for at, line in enumerate(lines)
        ))  # fmt: skip
        write(folder / f"img_1000px/{name}.jpg", picture("JPEG"))
        sizes.append({"id": name, "orig_w": 463, "orig_h": 1013, "w": 48, "h": 64})
    write(folder / "sizes.csv", table(sizes))
    return 24


def _sentence(label: str, prefix: str, gap: str) -> str:
    name, *rest = words(8).split()
    return f"{name}{gap}{prefix}-{label}\n" + "".join(f"{word}{gap}O\n" for word in rest)


def wikigold_ner(folder: Path) -> int:
    documents = ["\n".join(_sentence(label, "I", " ") for label in ("PER", "MISC")) for _ in range(14)]
    write(folder / "wikigold.conll.txt", "\n-DOCSTART- O\n\n".join(documents))
    return 28


def wnut17_ner(folder: Path) -> int:
    write(folder / "README-upstream.md", "# Emerging Entities dataset\n")
    for file, count in {"wnut17train.conll": 9, "emerging.dev.conll": 4, "emerging.test.annotated": 5}.items():
        write(folder / file, "\n".join(_sentence("creative-work", "B", "\t") for _ in range(count)))
    return 18


def xquad_en(folder: Path) -> int:
    articles = []
    for article in range(14):
        contexts = [words(20), words(20)]
        articles.append({"title": f"Title_{article}", "paragraphs": [
            {"context": context, "qas": [{"id": f"{article}-{place}", "question": f"{words(5)}?", "answers": [
                {"answer_start": 7, "text": context[7:20]}]}]}
            for place, context in enumerate(contexts)
        ]})  # fmt: skip
    for language in ("en", "de"):
        write(folder / f"xquad.{language}.json", json.dumps({"data": articles, "version": "1.1"}, indent=2))
    return 28


LAYOUTS: dict[str, Callable[[Path], int]] = {
    "easy-vqa": easy_vqa, "free-spoken-digits": free_spoken_digits, "grocery-store": grocery_store,
    "scitldr-a": scitldr_a, "semeval2010-task8": semeval2010_task8,
    "spoken-and-written-digits": spoken_and_written_digits, "sroie-receipts": sroie_receipts,
    "wikigold-ner": wikigold_ner, "wnut17-ner": wnut17_ner, "xquad-en": xquad_en,
}  # fmt: skip
"""Each writes a set into a folder and returns how many examples the recipe makes of it."""
