"""The deployment files: loopback only, no secret in them, and accepted by the tools that read them."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.cli.deploy._models import DeploymentConfig, PrefectYamlModel, RawScheduleConfig, WorkPoolConfig
from prefect.client.schemas.objects import ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule
from prefect.utilities.importtools import import_object
from prefect.utilities.templating import apply_values
from pydantic import BaseModel

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
COMPOSE: dict[str, Any] = yaml.safe_load((INFRA / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PREFECT: dict[str, Any] = yaml.safe_load((INFRA / "prefect.yaml").read_text())
DEPLOYMENTS: list[dict[str, Any]] = PREFECT["deployments"]

SECRET_NAME = re.compile(r"PASSWORD|SECRET|AUTH|ACCESS_KEY")
REQUIRED_VARIABLE = re.compile(r"\$\{(\w+):\?[^}]*\}")


def required_variables() -> set[str]:
    return set(REQUIRED_VARIABLE.findall((INFRA / "compose.yaml").read_text()))


def compose_config(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `docker compose config` where it exists; it parses and interpolates without a daemon."""
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run([docker, "compose", "version"], check=False, capture_output=True).returncode != 0
    ):
        pytest.skip("docker compose is not installed here")
    clean = {name: value for name, value in os.environ.items() if name not in required_variables()}
    command = [docker, "compose", "--env-file", os.devnull, "--file", str(INFRA / "compose.yaml"), "config", "--quiet"]
    return subprocess.run(command, check=False, env=clean | environment, capture_output=True, text=True, timeout=60)


def versions(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock.read_text(), re.MULTILINE))


def copied() -> list[str]:
    """List what the Dockerfile copies out of the tree."""
    lines = [line.split()[1:] for line in (INFRA / "Dockerfile").read_text().splitlines() if line.startswith("COPY ")]
    plain = [[word for word in words if not word.startswith("--")] for words in lines if "--from" not in words[0]]
    return [source for words in plain for source in words[:-1]]


def test_the_dockerfile_copies_files_of_the_tree() -> None:
    assert len(copied()) == 4
    assert [source for source in copied() if not (ROOT / source).is_file()] == []


@pytest.mark.parametrize("source", copied())
def test_the_builder_is_sent(source: str) -> None:
    lines = (INFRA / "Dockerfile.dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    parts = [source, *map(str, Path(source).parents)]  # a pattern that meets a folder meets all that it holds
    last = [pattern for pattern in patterns if any(fnmatch(part, pattern.lstrip("!")) for part in parts)][-1]
    assert last.startswith("!"), f"{last} keeps {source} out of the image"


def test_docker_compose_accepts_the_file_when_every_required_variable_is_set() -> None:
    done = compose_config(dict.fromkeys(required_variables(), "filled"))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("missing", sorted(required_variables()))
def test_docker_compose_refuses_to_start_without(missing: str) -> None:
    done = compose_config(dict.fromkeys(required_variables() - {missing}, "filled"))
    assert done.returncode != 0
    assert missing in done.stderr


def test_every_published_port_is_bound_to_loopback() -> None:
    ports = [str(port) for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports), ports


def test_no_service_shares_the_network_of_the_host() -> None:
    assert [name for name, service in SERVICES.items() if "network_mode" in service or service.get("privileged")] == []


def test_secrets_come_only_from_required_variables() -> None:
    secrets = {
        (service, name): value
        for service, body in SERVICES.items()
        for name, value in body.get("environment", {}).items()
        if SECRET_NAME.search(name)
    }
    assert len(secrets) == 10
    assert {key: value for key, value in secrets.items() if not REQUIRED_VARIABLE.fullmatch(value)} == {}


def test_the_environment_example_names_every_required_variable_and_fills_in_none() -> None:
    lines = (INFRA / ".env.example").read_text().splitlines()
    assert {line.removesuffix("=") for line in lines if line and not line.startswith("#")} == required_variables()


def test_images_are_pinned_by_tag() -> None:
    images = [service["image"] for service in SERVICES.values() if "build" not in service]
    assert len(images) == 3
    assert [image for image in images if ":" not in image or image.endswith((":latest", "-latest"))] == []


@pytest.mark.parametrize("name", ["postgres", "server", "s3", "worker"])
def test_a_service_that_stays_up_reports_its_health(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]


def test_the_work_pool_of_the_deployment_is_the_one_the_container_serves() -> None:
    served = re.search(r"--pool (\S+)", (INFRA / "worker.sh").read_text())
    assert served is not None
    assert {deployment["work_pool"]["name"] for deployment in DEPLOYMENTS} == {served[1]}


def test_the_image_of_the_server_has_the_locked_version_of_prefect() -> None:
    assert SERVICES["server"]["image"].startswith(
        f"prefecthq/prefect:{versions(ROOT / 'requirements.lock')['prefect']}-"
    )


def test_prefect_reads_the_deployment_file_and_ignores_no_key() -> None:
    PrefectYamlModel.model_validate(PREFECT)
    assert unknown_keys(PREFECT, PrefectYamlModel) == set()
    for deployment in DEPLOYMENTS:
        assert unknown_keys(deployment, DeploymentConfig) == set()
        assert unknown_keys(deployment["work_pool"], WorkPoolConfig) == set()
        for schedule in deployment["schedules"]:
            RawScheduleConfig.model_validate(schedule)


def unknown_keys(section: dict[str, Any], model: type[BaseModel]) -> set[str]:
    """List the keys that the model would drop without a word."""
    return set(section) - {field.alias or name for name, field in model.model_fields.items()}


def test_the_deployment_runs_the_flow_retrain_from_the_root() -> None:
    assert [deployment["entrypoint"] for deployment in DEPLOYMENTS] == ["flows/retrain.py:retrain"]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], list[str]]:
    """Give the start of a run: take the deployment's pull steps, and say what lies in the folder it then stands in."""
    (tmp_path / "mine").touch()
    monkeypatch.setenv("FUSELINE_REPOSITORY", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def pull(update: str | None) -> list[str]:
        monkeypatch.delenv("FUSELINE_UPDATE", raising=False)
        if update is not None:
            (tmp_path / "update.sh").write_text(f"#!/bin/sh\n{update}\n")
            (tmp_path / "update.sh").chmod(0o755)
            monkeypatch.setenv("FUSELINE_UPDATE", str(tmp_path / "update.sh"))
        monkeypatch.chdir("/")
        for step in PREFECT["pull"]:
            [(name, inputs)] = step.items()
            done = import_object(name)(**apply_values(inputs, os.environ))
            if inspect.isawaitable(done):
                asyncio.run(done)
        return sorted(path.name for path in Path.cwd().iterdir())

    return pull


def test_a_worker_without_containers_runs_in_the_users_tree_and_leaves_it_alone(
    start: Callable[[str | None], list[str]],
) -> None:
    assert start(None) == ["mine"]


def test_a_worker_that_names_an_update_takes_it_before_each_run(start: Callable[[str | None], list[str]]) -> None:
    assert start('touch "$FUSELINE_REPOSITORY/pushed"') == ["mine", "pushed", "update.sh"]


def test_an_update_that_fails_stops_the_run(start: Callable[[str | None], list[str]]) -> None:
    with pytest.raises(RuntimeError, match="error code 1"):
        start("exit 1")


def test_the_image_names_the_update_that_it_holds() -> None:
    named = re.search(r"^ENV FUSELINE_UPDATE=(\S+)$", (INFRA / "Dockerfile").read_text(), re.MULTILINE)
    assert named is not None
    assert f"infra/{Path(named[1]).name}" in copied()


def test_the_schedule_is_a_valid_cron_in_a_known_time_zone() -> None:
    [schedule] = DEPLOYMENTS[0]["schedules"]
    assert CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"]).cron == schedule["cron"]


def test_a_second_run_waits_for_the_first() -> None:
    limit = DEPLOYMENTS[0]["concurrency_limit"]
    assert limit["limit"] == 1
    assert ConcurrencyLimitStrategy(limit["collision_strategy"]) is ConcurrencyLimitStrategy.ENQUEUE
