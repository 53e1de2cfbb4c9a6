"""The server's image: what it installs is enough and no more, and it runs as little as it can."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement

from fuseline.serving.settings import Settings

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
DOCKERFILE = (INFRA / "serve.Dockerfile").read_text()
SERVICE: dict[str, Any] = yaml.safe_load((INFRA / "compose.yaml").read_text())["services"]["serve"]
HEAVY = {"torch", "torchvision", "transformers", "prefect", "dvc", "great-expectations", "onnx", "pandas", "pyarrow",
         "datasets", "scikit-learn", "huggingface-hub", "onnxruntime-gpu"}  # fmt: skip


def locked(file: Path) -> dict[str, set[str]]:
    """Read the names of a lock, and the versions of each."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==(\S+)", file.read_text(), re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


def requirements(file: Path) -> list[Requirement]:
    lines = (line.partition(" #")[0].strip() for line in file.read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_the_server_has_the_versions_that_everything_else_has() -> None:
    all_of_it, server = locked(ROOT / "requirements.lock"), locked(INFRA / "serve.lock")
    common = set(server) & set(all_of_it) - {"onnxruntime"}
    assert {name: server[name] - all_of_it[name] for name in common if server[name] - all_of_it[name]} == {}
    assert server["onnxruntime"] == all_of_it["onnxruntime"] | all_of_it["onnxruntime-gpu"]
    assert len(common) > 20


def test_nothing_of_training_is_in_the_image() -> None:
    assert set(locked(INFRA / "serve.lock")) & HEAVY == set()


def test_every_file_is_known_by_its_hash() -> None:
    entries = re.split(r"\n(?=[a-z])", (INFRA / "serve.lock").read_text())
    assert all("--hash=sha256:" in entry for entry in entries)


def test_the_server_asks_for_what_the_package_asks_for() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    ours = {Requirement(line).name: Requirement(line).specifier for line in declared}
    asked = [each for each in requirements(INFRA / "serve.in") if each.name != "onnxruntime"]
    assert {each.name: each.specifier for each in asked} == {each.name: ours[each.name] for each in asked}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with the packages of serve.lock for this machine, and no others, as they are installed here."""
    folder = tmp_path_factory.mktemp("site")
    names = {each.name for each in requirements_here()} - {"onnxruntime"}
    for name in names | {"onnxruntime-gpu" if has("onnxruntime-gpu") else "onnxruntime"}:
        distribution = importlib.metadata.distribution(name)
        tops = {file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(str(distribution.locate_file(top))).resolve())
    return folder


def requirements_here() -> list[Requirement]:
    lines = re.findall(r"^([a-z0-9-]+==[^\\\n]+)", (INFRA / "serve.lock").read_text(), re.MULTILINE)
    asked = [Requirement(line.strip()) for line in lines]
    return [each for each in asked if each.marker is None or each.marker.evaluate(dict(default_environment()))]


def has(name: str) -> bool:
    return any(each.metadata["Name"] == name for each in importlib.metadata.distributions())


ASK = """
import asyncio, json, sys
from pathlib import Path
from fuseline.cli import serve
from fuseline.serving import server
from fuseline.serving.app import create_app
from fuseline.serving.settings import Settings
from fuseline.serving.triton import write_repository

async def call(app, path, body):
    sent = []
    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}
    async def send(message):
        sent.append(message)
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
             "headers": [(b"content-type", b"application/json")], "http_version": "1.1", "scheme": "http"}
    async with app.router.lifespan_context(app):
        await app(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])

app = create_app(Path(sys.argv[1]), Settings(providers=("CPUExecutionProvider",), threads=1))
body = json.dumps({"rows": [json.loads(sys.argv[2])]}).encode()
modules = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps([asyncio.run(call(app, "/v1/predict", body)), modules]))
"""


def test_those_packages_alone_answer_a_row(site: Path, bundle: Path) -> None:
    row = {"text": "the rose"}
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", ASK, str(bundle), json.dumps(row)], capture_output=True, text=True,
        check=False, timeout=120, env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{site}{os.pathsep}{ROOT / 'src'}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (status, answer), modules = json.loads(done.stdout.splitlines()[-1])
    assert (status, "label" in answer["answers"][0]) == (200, True)
    assert {name.replace("-", "_") for name in HEAVY} & set(modules) == set()


def test_the_builder_is_sent_what_is_copied_and_little_else() -> None:
    copied = [line.split()[1] for line in DOCKERFILE.splitlines() if line.startswith("COPY ") and "--from" not in line]
    lines = (INFRA / "serve.Dockerfile.dockerignore").read_text().splitlines()
    let_in = [line[1:] for line in lines if line.startswith("!")]
    assert copied == let_in == ["infra/serve.lock", "src/fuseline"]
    assert all((ROOT / source).exists() for source in copied)
    assert any(fnmatch("src/fuseline/__pycache__", f"src/fuseline/{line.removeprefix('**/')}") for line in lines)


def test_it_runs_as_a_user_and_its_health_is_asked_where_the_server_answers() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.findall(r"^USER (\S+)", last, re.MULTILINE) == ["fuseline"]
    assert "http://127.0.0.1:8000/health/ready" in last
    assert 'ENTRYPOINT ["python", "-m", "fuseline.cli", "serve"]' in last


def test_the_entry_point_is_the_command(site: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-m", "fuseline.cli", "serve", "--help"], capture_output=True, text=True,
        check=False, timeout=60, env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{site}{os.pathsep}{ROOT / 'src'}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Usage: fuseline serve" in done.stdout


def test_bodies_take_less_than_half_of_the_services_memory() -> None:
    [gigabytes] = re.findall(r":-(\d+)g", SERVICE["mem_limit"])
    assert 3 * Settings().max_inside_bytes < int(gigabytes) * 1e9 / 2


def test_the_service_can_write_nothing_and_gain_nothing() -> None:
    assert SERVICE["read_only"] is True
    assert SERVICE["cap_drop"] == ["ALL"]
    assert SERVICE["security_opt"] == ["no-new-privileges:true"]
    assert all(volume.endswith(":ro") for volume in SERVICE["volumes"])
    assert SERVICE["profiles"] == ["serve"]
