"""SemEval 2010 task 8 as JSON Lines: a sentence with two marked nominals, and the relation between them.

Usage: python examples/semeval2010_task8.py FOLDER > batch.jsonl
"""

import json
import sys
from pathlib import Path

folder = Path(sys.argv[1])
for split, file in {"train": "TRAIN_FILE.TXT", "test": "TEST_FILE_FULL.TXT"}.items():
    for block in (folder / file).read_text(encoding="utf-8").replace("\r\n", "\n").strip().split("\n\n"):
        sentence, relation, comment = block.strip().split("\n")
        number, text = sentence.split("\t")
        row = {"id": number, "split": split, "text": text.strip('"'), "target": relation.strip()}
        print(json.dumps(row | {"comment": comment.removeprefix("Comment:").strip()}, ensure_ascii=False))
