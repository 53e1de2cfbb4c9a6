"""The champion's files: fetched from the remote by version, and swapped in at once."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from pathlib import Path

from fuseline.errors import BundleError, LineageError, NotInstalledError, PublishError
from fuseline.lineage.dvc import dvc, share_cache
from fuseline.lineage.git import fetch_tags, git
from fuseline.lineage.registry import STAGE, assign, versions
from fuseline.lineage.workspace import STATE
from fuseline.runtime.bundle import read_bundle

LINK = "champion"


def fetch(repo: Path, revision: str, target: Path) -> Path:
    """Fetch the bundle that was published at a git revision, and verify it.

    Raises:
        LineageError: neither cache nor remote holds it.
        BundleError: what came is altered.
    """
    got = target.with_name(f"{target.name}.got")
    shutil.rmtree(got, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        dvc(repo, "get", str(repo), LINK, "--rev", revision, "--out", str(got))
        read_bundle(got)
        _copy(got, target)  # DVC may have linked its cache: what is written into one must not reach the other
    except BundleError:
        _drop_damaged(repo)
        fetch_anew(repo, revision, target)
    finally:
        shutil.rmtree(got, ignore_errors=True)
    return target


def fetch_anew(repo: Path, revision: str, target: Path) -> Path:
    """Fetch a bundle as a stranger would: another clone, an empty cache, the remote alone; and verify it.

    Raises:
        LineageError: the remote does not hold it.
        BundleError: what came is altered.
    """
    other = target.with_name(f"{target.name}.anew")
    shutil.rmtree(other, ignore_errors=True)
    try:
        git(repo, "clone", "--quiet", "--no-checkout", str(repo), str(other))
        git(other, "checkout", "--quiet", "--detach", revision)
        share_cache(repo, other)
        dvc(other, "cache", "dir", "--local", str(other / ".dvc" / "cache"))
        dvc(other, "pull", f"{LINK}.dvc")
        read_bundle(other / LINK)
        _copy(other / LINK, target)
    finally:
        shutil.rmtree(other, ignore_errors=True)
    return target


def _copy(bundle: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(bundle, target)


def _drop_damaged(repo: Path) -> None:
    """Remove the entries of DVC's cache that are not what their name says."""
    for path in Path(dvc(repo, "cache", "dir").strip()).glob("files/md5/??/*"):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "md5").hexdigest()
        if digest != (path.parent.name + path.name).removesuffix(".dir"):
            path.unlink()


def install(repo: Path, bundle: Path, version: str) -> Path:
    """Make `bundle` the content of champion/: one rename of a link, so readers see the old or the new one.

    Raises:
        PublishError: something that Fuseline did not make stands at champion/.
    """
    check_place(repo)
    link, home = repo / LINK, repo / STATE / "champions"
    try:
        return _swap(repo, bundle, version, link, home)
    except OSError as error:
        raise NotInstalledError(
            f"{version} is the champion by its tag, but {link} could not be swapped: {error}; "
            f"mend that, then `fuseline promote {version}`"
        ) from error


def check_place(repo: Path) -> None:
    """Refuse to work where something that Fuseline did not make stands at champion/."""
    link = repo / LINK
    if link.exists() and not link.is_symlink():
        raise PublishError(f"{link} is not Fuseline's link to a bundle; move it away and run again")


def _swap(repo: Path, bundle: Path, version: str, link: Path, home: Path) -> Path:
    home.mkdir(parents=True, exist_ok=True)
    place = home / f"{version}-{uuid.uuid4().hex[:8]}"
    os.replace(bundle, place)
    previous = os.readlink(link) if link.is_symlink() else None
    part = repo / STATE / f"link-{uuid.uuid4().hex[:8]}"
    part.symlink_to(place.relative_to(repo))
    os.replace(part, link)
    for old in home.iterdir():
        if old.name != place.name and (previous is None or old.name != Path(previous).name):
            shutil.rmtree(old, ignore_errors=True)
    return link


def promote(repo: Path, name: str, version: str, remote: str | None) -> str:
    """Make a registered version the champion again; return the tag that says so.

    Args:
        remote: git remote that shares the versions; null keeps the tag here.

    Raises:
        PublishError: there is no such version.
    """
    if remote:
        fetch_tags(repo, remote)
    check_place(repo)
    known = versions(repo, name)
    if version not in known:
        raise PublishError(f"there is no version {version!r} of {name}; registered: {', '.join(known) or 'none'}")
    bundle = fetch(repo, f"{name}@{version}", repo / STATE / "incoming" / version)
    tag = assign(repo, name, version, f"Promote {name} {version} by hand")
    if remote:
        _share(repo, remote, tag)
    install(repo, bundle, version)
    return tag


def _share(repo: Path, remote: str, tag: str) -> None:
    try:
        git(repo, "push", "--quiet", "--atomic", remote, f"refs/tags/{tag}")
    except LineageError:
        git(repo, "tag", "--delete", tag)  # what others do not know of did not happen
        raise


def trace(repo: Path) -> tuple[str | None, str]:
    """Return what is another as soon as the champion is: where its link points, and the tags that assign it."""
    link = repo / LINK
    return (os.readlink(link) if link.is_symlink() else None), git(repo, "tag", "--list", f"*#{STAGE}*")


def describe_installed(repo: Path, version: str) -> str:
    """Say whether champion/ holds the bundle of the version that the tags call champion."""
    return installed_problem(repo, version) or f"{LINK}/ holds {version}, verified"


def installed_problem(repo: Path, version: str) -> str | None:
    """Say what is wrong with champion/, None if it holds `version`, unaltered."""
    link = repo / LINK
    held = Path(os.readlink(link)).name.rpartition("-")[0] if link.is_symlink() else None
    if held != version:
        return f"{LINK}/ holds {held or 'nothing'}, not {version}: run `fuseline promote {version}`"
    try:
        read_bundle(link)
    except BundleError as error:
        return str(error)
    return None
