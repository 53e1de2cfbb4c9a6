"""The recipes of examples/ work as they are written: on made-up sets of the same layouts, and on the published ones."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fuseline import config
from fuseline.cli import app
from fuseline.data.shards import WIDE, read_examples, read_manifest
from fuseline.data.unpack import Bounds, unpack
from fuseline.lineage.dvc import dvc
from fuseline.lineage.git import git
from fuseline.records import Preparation
from fuseline.stages import prepare, validate
from tests.examples.layouts import LAYOUTS

ROOT = Path(__file__).parents[2]
README = (ROOT / "examples/README.md").read_text(encoding="utf-8")
RECIPES = {
    section.partition("\n")[0]: commands[0].splitlines()
    for section in README.split("\n## ")[1:]
    if (commands := re.findall(r"```console\n(.*?)```", section, re.S))
}
"""Each data set's commands."""
TABLE = {
    name: [int(number.replace(",", "")) for number in re.findall(r"\| ([\d,]+)(?= \|)", row)][:5]
    for name, row in re.findall(r"^\| \[([\w-]+)\].*?→[^|]*(\|.*)$", README, re.M)
}
"""Each data set's rows: taken in, in train, val and test, held out."""
OFFICIAL = {
    "easy-vqa": {"train": 38_575, "test": 9_673},
    "free-spoken-digits": {None: 3_000},
    "grocery-store": {"train": 2 * 2_640, "val": 2 * 296, "test": 2 * 2_485},
    "scitldr-a": {"train": 1_992, "val": 619, "test": 618},
    "semeval2010-task8": {"train": 8_000, "test": 2_717},
    "spoken-and-written-digits": {"train": 2_000, "val": 500, "test": 500},
    "sroie-receipts": {None: 626},
    "wikigold-ner": {None: 1_841 - 145},
    "wnut17-ner": {"train": 3_394, "val": 1_009, "test": 1_287},
    "xquad-en": {None: 1_190},
}
"""What the sets' own descriptions say of their splits."""
SOURCES = {"spoken-and-written-digits": "free-spoken-digits"}
"""Recipes of a set that has another one's name."""
FOLDER = os.environ.get("DATA")
Rows = list[dict[str, Any]]


def test_every_recipe_is_looked_at() -> None:
    assert RECIPES.keys() == TABLE.keys() == LAYOUTS.keys() == OFFICIAL.keys()
    assert len(RECIPES) == 10
    overlays = {path.stem for path in (ROOT / "examples").glob("*.yaml")}
    assert overlays - {"tune-text"} == RECIPES.keys()  # that one is a space to search
    scripts = {f"{name.replace('-', '_')}.py" for name, commands in RECIPES.items() if commands[0].startswith("python")}
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == scripts


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a repository with params and recipes as they are shipped, and no data."""
    for scope in ("GLOBAL", "SYSTEM"):
        monkeypatch.setenv(f"GIT_CONFIG_{scope}", os.devnull)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    folder = tmp_path / "repo"
    shutil.copytree(ROOT / "examples", folder / "examples")
    shutil.copy(ROOT / "params.yaml", folder)
    git(folder, "init", "--quiet")
    dvc(folder, "init", "--quiet")
    monkeypatch.chdir(folder)
    return folder


def follow(name: str, data: Path) -> None:
    """Follow a recipe in the current folder."""
    for command in RECIPES[name]:
        if command.startswith("fuseline "):
            done = CliRunner().invoke(app, shlex.split(command.replace("$DATA", str(data)))[1:])
            assert done.exit_code == 0, done.output
        elif command == "dvc repro prepare":
            params = config.load()
            validate.main(params)
            prepare.main(params)
        else:
            assert command.startswith("python examples/")
            subprocess.run(["bash", "-euc", command], env=os.environ | {"DATA": str(data)}, check=True)


def taken_in() -> Rows:
    rows: Rows = read_examples(Path("data"), WIDE.names).to_pylist()
    return rows


def spans_of(row: dict[str, Any]) -> dict[str, str]:
    return {label: row["text"][start:end] for start, end, label in json.loads(row["target"])}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_works_on_a_set_of_the_same_layout(name: str, repo: Path, tmp_path: Path) -> None:
    expected = LAYOUTS[name](tmp_path / "sets" / name)
    follow(name, tmp_path / "sets")
    rows = taken_in()
    assert len(rows) == expected
    assert not any(shard.quarantine for shard in read_manifest(Path("data")).shards)
    assert {row["split"] for row in rows} == set(OFFICIAL[name])
    CHECKS[name](rows)
    dealt = Preparation.read(Path("build/prepare/preparation.json"))
    assert (sum(dealt.rows.values()), dealt.held_out) == (expected, 0)
    assert set(dealt.rows) == {"train", "val", "test"}


def check_vqa(rows: Rows) -> None:
    assert all(row["text"] and row["image"]["bytes"] for row in rows)
    assert len({row["group"] for row in rows}) == len({row["image"]["bytes"] for row in rows}) == 73


def check_digits(rows: Rows) -> None:
    assert Counter(row["group"] for row in rows) == {"theo": 20, "lucas": 20, "jackson": 20}
    assert Counter(row["target"] for row in rows) == {str(digit): 6 for digit in range(10)}
    assert {row["meta"] for row in rows} == {'{"take": "0"}', '{"take": "1"}'}


def check_pairs_of_digits(rows: Rows) -> None:
    assert Counter(row["split"] for row in rows) == {"train": 20, "val": 20, "test": 20}
    pictures = {split: {row["image"]["bytes"] for row in rows if row["split"] == split} for split in ("val", "test")}
    assert len(pictures["val"] | pictures["test"]) == 40
    assert all(row["audio"]["bytes"] for row in rows)


def check_grocery(rows: Rows) -> None:
    for split in ("train", "val", "test"):
        chosen = [row for row in rows if row["split"] == split]
        beside = [sorted(row["text"] for row in chosen if row["target"] == what) for what in ("match", "mismatch")]
        assert beside[0] == beside[1]  # text alone tells nothing
    for row in rows:
        meta = json.loads(row["meta"])
        assert (meta["photo"] == meta["described"]) == (row["target"] == "match")
    assert len({(row["group"], row["image"]["bytes"]) for row in rows}) == 27


def check_tldr(rows: Rows) -> None:
    assert sum("references" in (row["meta"] or "") for row in rows) == 12
    assert all(row["text"].count(".") == 2 for row in rows)


def check_relations(rows: Rows) -> None:
    assert len({row["target"] for row in rows}) == 19
    assert all(re.fullmatch(r"[a-z ]+ <e1>\w+</e1> of <e2>\w+</e2>\.", row["text"]) for row in rows)


def check_receipts(rows: Rows) -> None:
    for row in rows:
        fields, meta, boxes = spans_of(row), json.loads(row["meta"]), json.loads(row["boxes"])
        assert (fields["company"], fields["date"]) == (meta["fields"]["company"], meta["fields"]["date"])
        assert fields["address"] == "NO.53, JALAN\nSAGU 18, JOHOR"
        total = next(start for start, _, label in json.loads(row["target"]) if label == "total")
        assert row["text"][:total].endswith("\nTOTAL: ")
        assert [row["text"][box[0] : box[1]] for box in boxes] == row["text"].split("\n")
        assert boxes[0][2:] == [155, 24, 704, 63]


def check_wikigold(rows: Rows) -> None:
    assert set(Counter(row["group"] for row in rows).values()) == {2}
    assert all(row["text"].startswith(*spans_of(row).values()) for row in rows)


def check_wnut(rows: Rows) -> None:
    assert Counter(row["split"] for row in rows) == {"train": 9, "val": 4, "test": 5}
    assert all(spans_of(row).keys() == {"creative-work"} for row in rows)


def check_xquad(rows: Rows) -> None:
    assert len({row["group"] for row in rows}) == 14
    for row in rows:
        ((start, answer),) = json.loads(row["target"])
        assert row["text_pair"].startswith(answer, start)


CHECKS: dict[str, Callable[[Rows], None]] = {
    "easy-vqa": check_vqa, "free-spoken-digits": check_digits, "grocery-store": check_grocery,
    "scitldr-a": check_tldr, "semeval2010-task8": check_relations,
    "spoken-and-written-digits": check_pairs_of_digits, "sroie-receipts": check_receipts,
    "wikigold-ner": check_wikigold, "wnut17-ner": check_wnut, "xquad-en": check_xquad,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not FOLDER, reason="needs the published sets: make test-examples DATA=FOLDER")
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_gives_what_the_readme_says_of_the_published_set(name: str, repo: Path, tmp_path: Path) -> None:
    data = Path(FOLDER or "").resolve()
    source = SOURCES.get(name, name)
    if not (data / source).is_dir():
        archive = data / f"{source}.tar.gz"
        assert archive.is_file(), f"neither {data / source} nor {archive.name} is there"
        unpack(archive, tmp_path / "sets", Bounds())
        data = tmp_path / "sets"
    follow(name, data)
    rows = read_examples(Path("data"), ["id", "split"])
    assert Counter(rows["split"].to_pylist()) == OFFICIAL[name]
    assert rows.num_rows == TABLE[name][0]
    assert not any(shard.quarantine for shard in read_manifest(Path("data")).shards)
    dealt = Preparation.read(Path("build/prepare/preparation.json"))
    assert [*(dealt.rows[split] for split in ("train", "val", "test")), dealt.held_out] == TABLE[name][1:]
