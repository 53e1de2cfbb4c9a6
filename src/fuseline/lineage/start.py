"""What a warm start goes on from: the champion's own members, brought as files that DVC tracks.

A stage knows no champion. A run lays the members into start/, which start.dvc tracks, and their digests into
start.json, which the training stages depend on; both are committed on the run's branch, so that any clone of it trains
the same again.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml

from fuseline.errors import LineageError
from fuseline.lineage.dvc import dvc
from fuseline.lineage.git import git
from fuseline.lineage.registry import Registered
from fuseline.progress import say
from fuseline.records import DataManifest, Start, sha256_of

FOLDER, RECORD, TRACKED = "start", "start.json", "start.dvc"
NEEDED = ("config.json", "model.safetensors")
"""Of a member's files: what it is built from again."""


def bring(clone: Path, champion: Registered | None, places: Sequence[str]) -> None:
    """Lay the champion's members into start/ of a run's clone; record what they are.

    Where no member is wanted, everything stays as it is.

    Args:
        places: of the members that are wanted, such as experts/text. Those that the champion lacks are left out.

    Raises:
        LineageError: neither cache nor remote holds the champion's members.
    """
    if not places:
        return
    shutil.rmtree(clone / FOLDER, ignore_errors=True)
    git(clone, "rm", "--quiet", "--force", "--ignore-unmatch", TRACKED)
    start = Start(version=None, known=[], files={}) if champion is None else _fetch(clone, champion, places)
    start.write(clone / RECORD)
    if start.files:
        dvc(clone, "add", FOLDER)


def _fetch(clone: Path, champion: Registered, places: Sequence[str]) -> Start:
    files: dict[str, str] = {}
    for place in sorted(set(places) & set(trained_at(clone, champion.tag))):
        files |= _fetch_member(clone, champion, place)
    params = yaml.safe_load(git(clone, "show", f"{champion.tag}:params.yaml"))
    return Start(
        version=champion.version, known=known_shards(clone, champion.version, champion.tag), files=files,
        prepare=params["prepare"], encoders=params["encoders"],
    )  # fmt: skip


def trained_at(clone: Path, revision: str) -> list[str]:
    """Return the places of the members that were trained at a revision, such as experts/text."""
    stages = yaml.safe_load(git(clone, "show", f"{revision}:dvc.lock"))["stages"]
    outs = [out["path"] for stage in stages.values() for out in stage.get("outs", [])]
    return [path.removeprefix("build/train/") for path in outs if path.startswith("build/train/")]


def _fetch_member(clone: Path, champion: Registered, place: str) -> dict[str, str]:
    target = clone / FOLDER / place
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        dvc(clone, "get", str(clone), f"build/train/{place}", "--rev", champion.tag, "--out", str(target))
    except LineageError as error:
        raise LineageError(
            f"member {place} of champion {champion.version} cannot be fetched, and training is to go on from it: point "
            "DVC at the remote that holds it (`dvc remote modify --local artifacts url …`), or set warm_start to null. "
            f"({error})"
        ) from error
    for path in target.iterdir():
        if path.name not in NEEDED:
            path.unlink()
    return {f"{place}/{name}": sha256_of(target / name) for name in NEEDED}


def known_shards(clone: Path, version: str, tag: str) -> list[str]:
    """Return the shards of the data set that the champion's held too, by their digest or that of their batch.

    Without its manifest none is known: every row counts as new.
    """
    target = clone / ".fuseline" / f"manifest-{version}.json"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            dvc(clone, "get", str(clone), "data/manifest.json", "--rev", tag, "--out", str(target))
        except LineageError as error:
            say(f"the data set of champion {version} cannot be fetched; every row counts as new. ({error})")
            return []
    theirs, ours = (DataManifest.read(path).shards for path in (target, clone / "data" / "manifest.json"))
    digests, batches = {shard.sha256 for shard in theirs}, {shard.batch for shard in theirs} - {None}
    return [shard.file for shard in ours if shard.sha256 in digests or shard.batch in batches]
