"""The application without a port, and bundles at a place that can be swapped."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from fuseline.serving.app import create_app
from fuseline.serving.settings import Settings


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@asynccontextmanager
async def reach(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Start an application, and give a client of it."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://here") as one:
        yield one


async def metric(client: httpx.AsyncClient, name: str) -> float:
    """Read one number of /metrics."""
    lines = (await client.get("/metrics")).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@pytest.fixture
def make(bundle: Path) -> Callable[..., FastAPI]:
    """Give the maker of an application; keywords are settings."""

    def build(place: Path = bundle, **settings: Any) -> FastAPI:
        plain: dict[str, Any] = {"providers": ("CPUExecutionProvider",), "threads": 1}
        return create_app(place, Settings(**plain | settings))

    return build


@pytest.fixture
def champion(bundle: Path, tmp_path: Path) -> Path:
    """Give a link to a bundle, as champion/ is."""
    (tmp_path / "champion").symlink_to(bundle)
    return tmp_path / "champion"


def another(bundle: Path, folder: Path, name: str) -> Path:
    """Copy a bundle under another name."""
    shutil.copytree(bundle, folder)
    card = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps(card | {"name": name}))
    return folder


def swap(link: Path, target: Path) -> None:
    """Have a link lead elsewhere, at once."""
    part = link.with_name("part")
    part.symlink_to(target)
    part.replace(link)
