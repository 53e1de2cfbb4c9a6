"""The DVC commands that a run needs, by its command line: the narrow and stable side of it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from configobj import ConfigObj

from fuseline.errors import LineageError
from fuseline.lineage.process import lives, python_env, run, stream

HINTS = ("> ", "Updating lock", "To track", "\tgit add", "To enable auto", "\tdvc config", "Use `dvc push`")
"""What DVC says to a person at its own command line, and nobody needs in a log."""

DVC = [sys.executable, "-m", "dvc"]


def dvc(repo: Path, *arguments: str) -> str:
    """Run a DVC command in `repo`."""
    return run([*DVC, *arguments], repo, python_env(repo))


def repro(repo: Path, stage: str, on_line: Callable[[str], None], force: bool = False) -> None:
    """Bring one stage up to date, its output streamed.

    Raises:
        LineageError: the stage failed, in its own words.
    """
    command = [*DVC, "repro", "--single-item", *(["--force"] if force else []), stage]

    def tell(line: str) -> None:
        if line and not line.startswith(HINTS):
            on_line(line)

    stream(command, repo, python_env(repo), tell)


def find_stale(repo: Path, *stages: str) -> dict[str, list[str]]:
    """Return what changed since stages, or those that they follow from, were run, by the stage that it matters to.

    Raises:
        LineageError: DVC refused, as where there is no such stage.
    """
    found = json.loads(dvc(repo, "status", "--json", "--with-deps", *stages))
    return {stage: list(_name_changes(changes)) for stage, changes in found.items()}


def _name_changes(node: Any, place: str = "") -> Iterator[str]:
    """Yield what changed in DVC's report, as `PATH or KEY is modified`."""
    if isinstance(node, str):
        yield f"{place} {node}".strip()
    for each in node if isinstance(node, list) else []:
        yield from _name_changes(each)
    for name, each in node.items() if isinstance(node, dict) else []:
        yield from _name_changes(each, "" if name.startswith("changed ") else name)


def stages(repo: Path) -> list[str]:
    """Return the names of all stages, in the order of dvc.yaml, which is the order of the graph."""
    return dvc(repo, "stage", "list", "dvc.yaml", "--name-only").split()


def data_digest(repo: Path) -> str:
    """Return the digest in data.dvc: the data revision.

    Raises:
        LineageError: data.dvc is missing or not what DVC writes.
    """
    return _read_data(repo)[0].removesuffix(".dir")


def _read_data(repo: Path) -> tuple[str, str | None]:
    """Return the digest in data.dvc as it stands there, and the DVC remote that it names."""
    document = _read(repo / "data.dvc")
    try:
        digest, remote = document["outs"][0]["md5"], document["outs"][0].get("remote")
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise _unreadable(repo / "data.dvc", "expected `outs:` with one `md5:`") from error
    if not isinstance(digest, str) or not digest:
        raise _unreadable(repo / "data.dvc", f"expected a digest after `md5:`, found {digest!r}")
    return digest, remote


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _unreadable(path, str(error.strerror)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _unreadable(path, f"not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise _unreadable(path, "expected keys with values")
    return document


def _unreadable(path: Path, why: str) -> LineageError:
    return LineageError(f"{path}: cannot be read as DVC's: {why}; mend it, or restore it: `git checkout {path.name}`")


def refuse_changed_data(repo: Path) -> None:
    """Refuse a data/ folder that is not the one data.dvc names: it would be ignored in silence.

    Raises:
        LineageError: it was changed.
    """
    if not (repo / "data").exists():
        return
    states = _data_states(repo)
    if "not in cache" in states:  # then DVC compares nothing
        dvc(repo, "fetch", "data.dvc")
        states = _data_states(repo)
    if states:
        raise LineageError(
            f"{repo / 'data'} differs from data.dvc: record the change with `dvc add data`, "
            "or drop it with `dvc checkout --force data.dvc`"
        )


def refuse_readers(repo: Path, name: str) -> None:
    """Refuse to change what a running stage reads: DVC would record its results as those of what came in meanwhile.

    Raises:
        LineageError: DVC's own record of readers (`.dvc/tmp/rwlock`) names a living process.
    """
    read = _read_readers(repo / ".dvc/tmp/rwlock")
    place = (repo / name).resolve()
    for path, readers in read.items():
        for reader in readers if Path(path).resolve().is_relative_to(place) else ():
            if lives(reader["pid"]):
                raise LineageError(
                    f"{repo / name} is being read by `{reader['cmd']}` (process {reader['pid']}); nothing was changed: "
                    "try again when it is done"
                )


def _read_readers(record: Path) -> dict[str, list[dict[str, Any]]]:
    """Return who reads what. DVC empties the record before it writes it anew: an empty one is looked at again."""
    for _ in range(50):
        try:
            return json.loads(record.read_text(encoding="utf-8")).get("read", {})  # type: ignore[no-any-return]
        except FileNotFoundError:
            return {}
        except ValueError:
            time.sleep(0.02)
    raise LineageError(
        f"{record}: cannot be read, so who reads data/ is unknown; nothing was changed: see that no `dvc repro` runs, "
        "and delete the file"
    )


def _data_states(repo: Path) -> set[str]:
    """Return DVC's words for how data/ differs from data.dvc; none where it does not."""
    status = json.loads(dvc(repo, "status", "data.dvc", "--json"))
    return {state for changed in status.get("data.dvc", []) for outs in changed.values() for state in outs.values()}


def refuse_data_outside_its_remote(repo: Path) -> None:
    """Refuse a data.dvc that sends other data than the embedded set to the embedded remote.

    Raises:
        LineageError: `remote: embedded` was kept while the data changed.
    """
    digest, remote = _read_data(repo)
    if remote == "embedded" and not (repo / "embedded/remote/files/md5" / digest[:2] / digest[2:]).exists():
        raise LineageError(
            f"{repo / 'data.dvc'}: the data is no longer the embedded set, but would be pushed into the "
            "repository: delete the line `remote: embedded`"
        )


def refuse_other_artifact(repo: Path, name: str) -> None:
    """Refuse a publish.name that dvc.yaml does not declare as an artifact at champion/.

    Raises:
        LineageError: they differ, so that `dvc artifacts get` would not find what is published; or dvc.yaml cannot
            be read.
    """
    declared = _read(repo / "dvc.yaml").get("artifacts") or {}
    if not isinstance(declared, dict):
        raise _unreadable(repo / "dvc.yaml", "expected names with values under `artifacts:`")
    ours = declared.get(name)
    if not isinstance(ours, dict) or ours.get("path") != "champion":
        raise LineageError(
            f"publish.name is {name!r}, but dvc.yaml's artifacts are {', '.join(declared) or 'none'}: "
            "name it there too, with `path: champion`"
        )


def share_cache(source: Path, clone: Path) -> None:
    """Let `clone` use the cache, remotes and local settings of `source`.

    Remote paths that are relative are relative to a repository's .dvc folder: they are made absolute.
    """
    local = ConfigObj(str(clone / ".dvc" / "config.local"), encoding="utf-8")
    merged = ConfigObj(str(source / ".dvc" / "config"), encoding="utf-8")
    if (source / ".dvc" / "config.local").is_file():
        merged.merge(ConfigObj(str(source / ".dvc" / "config.local"), encoding="utf-8"))
    local.merge(merged)
    local.setdefault("cache", {})["dir"] = _absolute(source, merged.get("cache", {}).get("dir", "cache"))
    for name in local.sections:
        if name.startswith(("remote ", "'remote ")) and "url" in local[name]:
            local[name]["url"] = _absolute(source, local[name]["url"])
    local.write()


def _absolute(source: Path, url: str) -> str:
    return url if "://" in url else str((source / ".dvc" / url).resolve())
