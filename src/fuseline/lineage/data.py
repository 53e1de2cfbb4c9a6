"""Versions of the data set: data/ and data.dvc move forward together, or not at all.

A new version is made in a folder of its own. Once it is whole and in DVC's cache, its data.dvc replaces the old one:
that is the moment at which it counts. data/ follows. A marker stands from shortly before until it has; where it is
found, something was interrupted, and the next command brings data/ in line with data.dvc, whichever that is by then.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from fuseline.cache import link
from fuseline.errors import FuselineError, LineageError
from fuseline.lineage.dvc import data_digest, dvc, refuse_changed_data, refuse_readers, share_cache
from fuseline.lineage.git import git
from fuseline.lineage.workspace import STATE

SWAPPING = "swapping"
EMBEDDED = "embedded"


@contextmanager
def locked(repo: Path) -> Iterator[None]:
    """Let one process at a time change the data set, and first finish what an interrupted one began.

    Raises:
        LineageError: another process is at it.
    """
    home = repo / STATE / "data"
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LineageError(
                f"{repo / 'data'} is being changed by another process; try again when it is done"
            ) from error
        recover(repo)
        _sweep(home)
        yield


SCRATCH = "scratch-"


@contextmanager
def scratch(repo: Path) -> Iterator[Path]:
    """Give an empty folder on the repository's disk, which is gone afterwards: after a kill, with the next change."""
    home = repo / STATE / "data"
    home.mkdir(parents=True, exist_ok=True)
    with _no_sweep(home):
        folder = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=home))
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _sweep(home: Path) -> None:
    """Remove the scratch folders of processes that were killed: nobody holds their locks."""
    with _no_sweep(home):
        for folder in home.glob(f"{SCRATCH}*"):
            try:
                handle = os.open(folder, os.O_RDONLY)
            except FileNotFoundError:  # its owner was faster
                continue
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            except BlockingIOError:
                continue
            finally:
                os.close(handle)


@contextmanager
def _no_sweep(home: Path) -> Iterator[None]:
    """Keep others from sweeping meanwhile: a new folder is nobody's until its lock is taken."""
    with (home / "scratch.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def recover(repo: Path) -> None:
    """Bring data/ in line with data.dvc if a swap was interrupted, and throw away a version that does not count.

    Raises:
        LineageError: data/ holds files that nobody recorded, or those of data.dvc cannot be fetched.
    """
    stage = _stage_of(repo)
    if (stage / SWAPPING).exists() and (repo / "data.dvc").exists():
        _follow(repo)
    _clear(stage)


def _follow(repo: Path) -> None:
    """Make data/ what data.dvc names; DVC refuses where that would cost a file that is not in its cache."""
    try:
        dvc(repo, "checkout", "data.dvc")
        return
    except LineageError:  # not in the cache, perhaps
        pass
    try:
        dvc(repo, "pull", "data.dvc")
    except LineageError as error:
        raise LineageError(
            f"{repo / 'data'} cannot be made what data.dvc names: bring back an older version of that "
            "(`git log -- data.dvc`, `git checkout COMMIT -- data.dvc`), or push this one where it is whole "
            f"(`dvc push`). ({error})"
        ) from error


def _stage_of(repo: Path) -> Path:
    """Return the folder that versions are made in: always the same, so that DVC knows the digests of old files."""
    return repo / STATE / "data" / "next"


def _clear(stage: Path) -> None:
    """Remove what a version left, the marker last: until then data/ may be behind data.dvc."""
    for name in ("data", "before"):
        shutil.rmtree(stage / name, ignore_errors=True)
    for name in ("data.dvc", SWAPPING):
        (stage / name).unlink(missing_ok=True)


def finish_swap(repo: Path) -> None:
    """Finish a swap that was interrupted, before anything reads the data set; does nothing where there was none.

    Raises:
        LineageError: as `recover` does, or another process is at it.
    """
    if (_stage_of(repo) / SWAPPING).exists():
        with locked(repo):
            pass


@contextmanager
def next_version(repo: Path) -> Iterator[Path]:
    """Give a copy of data/ to change; when the block ends well, that is the data set.

    The files are links to those of data/: replace them, do not write into them. Call it under `locked`.

    Raises:
        LineageError: data/ differs from data.dvc, DVC refused, or one of its stages reads data/ now.
    """
    stage = _stage_of(repo)
    refuse_readers(repo, "data")
    try:
        _stage(repo, stage)
        with speaking_of_data(repo, stage / "data"):
            yield stage / "data"
        _record(repo, stage)
        refuse_readers(repo, "data")
        _swap(repo, stage)
    finally:
        if not (stage / SWAPPING).exists():
            _clear(stage)


def check_out(repo: Path) -> Path:
    """Make sure that data/ is what data.dvc names, and return it.

    Raises:
        LineageError: it was changed by hand, or cannot be fetched.
    """
    finish_swap(repo)
    if (repo / "data").exists():
        refuse_changed_data(repo)
    else:  # a fresh clone
        _follow(repo)
    return repo / "data"


@contextmanager
def snapshot(repo: Path) -> Iterator[tuple[str, Path]]:
    """Give the data set as it is now: its data revision, and a folder that stays so whatever comes in meanwhile.

    Raises:
        LineageError: as `check_out` does.
    """
    with scratch(repo) as place:
        while not (digest := _link_all(repo, place / "data")):
            shutil.rmtree(place / "data", ignore_errors=True)
        with speaking_of_data(repo, place / "data"):
            yield digest, place / "data"


@contextmanager
def speaking_of_data(repo: Path, copy: Path) -> Iterator[None]:
    """Let errors name the files of data/, not those of a copy that is gone when they are read."""
    try:
        yield
    except FuselineError as error:
        raise type(error)(str(error).replace(str(copy), str(repo / "data"))) from error


def _link_all(repo: Path, folder: Path) -> str | None:
    """Link the files of data/ into a folder, and return their revision; None if the data set was changed meanwhile.

    data.dvc changes first and data/ after it, under a marker: where data.dvc is the same before and after, and no
    marker was there between, so are the files.
    """
    before = data_digest(repo)
    folder.mkdir()
    try:
        for file in check_out(repo).iterdir():
            link(file, folder / file.name)
    except (FileNotFoundError, LineageError):
        if data_digest(repo) == before:
            raise
        return None
    return before if data_digest(repo) == before else None


@contextmanager
def version_at(repo: Path, revision: str) -> Iterator[tuple[str, Path]]:
    """Give an earlier version of the data set: its data revision, and a folder that is gone afterwards.

    It comes from DVC's cache or remote, into a DVC project of its own: data/ and data.dvc stay as they are.

    Args:
        revision: a git revision, or the first digits of a data revision that some commit's data.dvc names.

    Raises:
        LineageError: there is no such revision, it has no data.dvc, or the data cannot be had.
    """
    document = _read_at(repo, revision)
    with scratch(repo) as place:
        (place / "data.dvc").write_text(document, encoding="utf-8")
        digest = data_digest(place)
        dvc(place, "init", "--no-scm", "--quiet")
        share_cache(repo, place)
        try:
            dvc(place, "pull", "data.dvc")
        except LineageError as error:
            raise LineageError(
                f"the data of {revision} ({digest[:12]}) is neither in DVC's cache nor in a remote within reach; "
                f"push it where it was made (`dvc push`), or name another revision. ({error})"
            ) from error
        yield digest, place / "data"


def _read_at(repo: Path, revision: str) -> str:
    """Return data.dvc as it was at a git revision, or as the latest commit has it that names a data revision."""
    try:
        commit = git(repo, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    except LineageError:
        commit = ""
    commits = [commit] if commit else git(repo, "log", "--all", "--format=%H", "--", "data.dvc").split()
    for one in commits:
        try:
            document = git(repo, "show", f"{one}:data.dvc")
        except LineageError:  # a commit that deleted it
            continue
        if commit or (_MANY_DIGITS.fullmatch(revision) and f"md5: {revision}" in document):
            return document
    if commit:
        raise LineageError(f"{revision}: has no data.dvc; name a revision that has one: `git log -- data.dvc`")
    raise LineageError(
        f"{revision}: neither a git revision nor the data revision of a commit; `git log -- data.dvc` lists those "
        "that changed the data set"
    )


_MANY_DIGITS = re.compile(r"[0-9a-f]{7,32}")


def _stage(repo: Path, stage: Path) -> None:
    (stage / "data").mkdir(parents=True)
    if not (repo / "data.dvc").exists():
        if (repo / "data").exists():
            raise LineageError(
                f"{repo / 'data'} is there without data.dvc, and would be replaced: move it away, record it with "
                "`dvc add data`, or bring data.dvc back with `git checkout data.dvc`"
            )
        return
    for file in check_out(repo).iterdir():
        os.link(file, stage / "data" / file.name)


def _record(repo: Path, stage: Path) -> None:
    """Put the new version into DVC's cache and write its data.dvc, in a DVC project of the stage's own."""
    if not (stage / ".dvc").exists():
        dvc(stage, "init", "--no-scm", "--quiet")
    share_cache(repo, stage)
    dvc(stage, "add", "data")  # quiet, it would not say why it failed
    _keep_settings(repo / "data.dvc", stage / "data.dvc")


def _keep_settings(old: Path, new: Path) -> None:
    """Carry over what a person wrote into data.dvc; the embedded remote is for the embedded data set alone."""
    if not old.exists():
        return
    before, after = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in (old, new))
    kept = {
        key: value for key, value in before["outs"][0].items() if key in ("remote", "desc", "type", "labels", "meta")
    }
    if kept.get("remote") == EMBEDDED and before["outs"][0]["md5"] != after["outs"][0]["md5"]:
        del kept["remote"]
    after["outs"][0] |= kept
    new.write_text(yaml.safe_dump(after, sort_keys=False), encoding="utf-8")


def _swap(repo: Path, stage: Path) -> None:
    """Put the stage's data.dvc and data/ in place."""
    (stage / SWAPPING).touch()
    _sync(stage)
    (stage / "data.dvc").replace(repo / "data.dvc")
    _sync(repo)
    if (repo / "data").exists():
        (repo / "data").rename(stage / "before")
    (stage / "data").rename(repo / "data")
    _sync(repo)
    _clear(stage)


def _sync(folder: Path) -> None:
    """Make renames last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
