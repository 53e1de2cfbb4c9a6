"""easy-VQA as JSON Lines: a question about a picture, and its answer.

Usage: python examples/easy_vqa.py FOLDER > batch.jsonl
"""

import json
import sys
from pathlib import Path

folder = Path(sys.argv[1])
for split in ("train", "test"):
    questions = json.loads((folder / f"data/{split}/questions.json").read_text(encoding="utf-8"))
    for number, (question, answer, image) in enumerate(questions):
        row = {
            "id": f"{split}-{number}", "group": f"{split}/{image}", "split": split,
            "text": question, "image": f"data/{split}/images/{image}.png", "target": answer,
        }  # fmt: skip
        print(json.dumps(row))
