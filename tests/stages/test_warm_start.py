"""The key `warm_start`: a stage goes on from the champion's member, and replays as many of its rows as params say."""

from __future__ import annotations

import copy
import importlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from fuseline import config
from fuseline.records import History, Start, sha256_of

pytestmark = pytest.mark.slow
OLD = "shard-00000-a.parquet"
Trained = tuple[dict[str, torch.Tensor], History]


@pytest.fixture
def train(
    document: dict[str, Any], prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Trained]]:
    """Give the run of a stage on a member, with a warm start or without: its weights and its record."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FUSELINE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "build").mkdir()
    (tmp_path / "build/prepare").symlink_to(prepared)

    def run(warm: dict[str, float] | None, stage: str = "train", member: str = "text", **changes: Any) -> Trained:
        changed = copy.deepcopy(document)
        for each in (changed["members"]["experts"] | changed["members"]["fusions"]).values():
            each |= {"warm_start": warm} | changes
        importlib.import_module(f"fuseline.stages.{stage}").main(config.Params.model_validate(changed), member)
        folder = tmp_path / "build/train" / ("experts" if stage == "train" else "fusions") / member
        return load_file(folder / "model.safetensors"), History.read(folder / "history.json")

    yield run
    torch.use_deterministic_algorithms(False)


def publish(document: dict[str, Any], *places: str) -> None:
    """Make what was trained the champion, whose data set held the first shard alone."""
    shutil.rmtree("start", ignore_errors=True)
    for place in places:
        shutil.copytree(Path("build/train") / place, Path("start") / place)
    files = {str(path.relative_to("start")): sha256_of(path) for path in Path("start").rglob("*.*")}
    settings = config.Params.model_validate(document).model_dump(mode="json", include={"prepare", "encoders"})
    Start(version="v1.0.0", known=[OLD], files=files, **settings).write(Path("start.json"))


def nobody() -> None:
    Start(version=None, known=[], files={}).write(Path("start.json"))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def rows_of(prepared: Path, old: bool) -> int:
    return sum(
        int(np.sum(pq.read_table(path)["text"].is_valid().to_numpy()))
        for path in (prepared / "train").glob("*.parquet")
        if (path.name == OLD) == old
    )


def test_an_expert_goes_on_from_the_champion_s_and_replays_the_share_that_params_say(
    train: Callable[..., Trained], prepared: Path, document: dict[str, Any]
) -> None:
    plain, record = train(None)
    assert record.origin is None
    publish(document, "experts/text")
    half, told = train({"replay": 0.5})
    assert told.origin is not None
    assert told.origin.version == "v1.0.0"
    assert (told.origin.old_rows, told.origin.new_rows) == (rows_of(prepared, True), rows_of(prepared, False))
    assert told.origin.replayed == -(-told.origin.old_rows // 2)
    full, _ = train({"replay": 1.0})
    again, _ = train(None)
    assert same(plain, again)
    assert not any(same(*pair) for pair in ((plain, half), (plain, full), (half, full)))


def test_the_first_run_has_no_champion_trains_anew_and_says_so(train: Callable[..., Trained]) -> None:
    plain, _ = train(None)
    nobody()
    first, told = train({"replay": 0.5})
    assert same(plain, first)
    assert told.origin is not None
    assert told.origin.version is None
    assert "no champion" in told.origin.why


def test_a_fusion_member_goes_on_as_a_whole_and_else_starts_from_the_experts(
    train: Callable[..., Trained], document: dict[str, Any]
) -> None:
    for expert in ("text", "image"):
        train(None, member=expert)
    plain, _ = train(None, "fuse", "fusion")
    nobody()
    first, _ = train({"replay": 0.5}, "fuse", "fusion")
    assert same(plain, first)
    publish(document, "fusions/fusion")
    warm, told = train({"replay": 0.5}, "fuse", "fusion")
    assert told.origin is not None
    assert told.origin.version == "v1.0.0"
    assert not same(plain, warm)
    shutil.rmtree("build/train/experts")  # it needs no expert to go on
    without, _ = train({"replay": 0.5}, "fuse", "fusion")
    assert same(warm, without)


def test_a_member_of_another_encoder_is_trained_anew_and_says_so(
    train: Callable[..., Trained], document: dict[str, Any]
) -> None:
    train(None)
    publish(document, "experts/text")
    path = Path("start/experts/text/config.json")
    changed = json.loads(path.read_text())
    changed["encoders"]["text"]["pooling"] = "last"
    path.write_text(json.dumps(changed))
    start = Start.read(Path("start.json"))
    start.model_copy(update={"files": start.files | {"experts/text/config.json": sha256_of(path)}}).write(
        Path("start.json")
    )
    plain, _ = train(None)
    anew, told = train({"replay": 0.5})
    assert same(plain, anew)
    assert told.origin is not None
    assert told.origin.why == "the member of champion v1.0.0 has another text encoder"
