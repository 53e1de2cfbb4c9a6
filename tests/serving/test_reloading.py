"""A champion that is swapped takes over without a request being lost; one that is broken does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from fuseline.errors import BundleError
from fuseline.inputs.audio import AudioReader
from fuseline.inputs.base import Reader
from fuseline.records import sha256_of
from fuseline.runtime.predictor import Predictor
from fuseline.serving import loading
from fuseline.serving.app import create_app
from fuseline.serving.loading import load, sample
from fuseline.serving.settings import Settings
from tests.serving.conftest import another, metric, reach, swap

Make = Callable[..., FastAPI]
CPU = Settings(providers=("CPUExecutionProvider",), threads=1)
ASK = {"rows": [{"text": "sea"}]}


async def name_of(client: httpx.AsyncClient) -> str:
    return str((await client.get("/v1/model")).json()["name"])


async def until(client: httpx.AsyncClient, name: str, value: float) -> None:
    async with asyncio.timeout(20):
        while await metric(client, name) < value:
            await asyncio.sleep(0.02)


def test_the_next_champion_takes_over_while_requests_go_on(
    make: Make, bundle: Path, champion: Path, tmp_path: Path
) -> None:
    names: list[str] = []

    async def ask(client: httpx.AsyncClient, stop: asyncio.Event) -> None:
        while not stop.is_set():
            done = await client.post("/v1/predict", json=ASK)
            assert done.status_code == 200
            names.append(done.json()["model"]["name"])

    async def run() -> str:
        stop = asyncio.Event()
        async with reach(make(champion, reload_s=0.1)) as client:
            asking = [asyncio.create_task(ask(client, stop)) for _ in range(3)]
            await asyncio.sleep(0.2)
            swap(champion, another(bundle, tmp_path / "next", "next"))
            await until(client, 'fuseline_reloads_total{outcome="swapped"}', 1)
            await asyncio.sleep(0.2)
            stop.set()
            await asyncio.gather(*asking)
            return await name_of(client)

    assert asyncio.run(run()) == "next"
    switch = names.index("next")
    assert set(names[:switch]) == {"tiny"}
    assert set(names[switch:]) == {"next"}


@pytest.mark.parametrize("damage", ["a byte of the weights", "a missing file", "no bundle.json in it"])
def test_the_old_champion_stays_when_the_next_has(
    damage: str, make: Make, bundle: Path, champion: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = another(bundle, tmp_path / "broken", "broken")
    if damage == "a byte of the weights":
        with (broken / "model.onnx.data").open("r+b") as file:
            file.write(b"!")
    else:
        (broken / ("tokenizer.json" if damage == "a missing file" else "bundle.json")).unlink()

    async def run() -> tuple[str, int, float]:
        app = make(champion, reload_s=0.05)
        async with reach(app) as client:
            swap(champion, broken)
            if damage == "no bundle.json in it":
                app.state.reloader.ask()  # a place without a bundle may be one that is being written
            await until(client, 'fuseline_reloads_total{outcome="refused"}', 1)
            await asyncio.sleep(0.3)  # it is not tried again and again
            answer = await client.post("/v1/predict", json=ASK)
            return await name_of(client), answer.status_code, await metric(client, "fuseline_reloads_total")

    assert asyncio.run(run()) == ("tiny", 200, 1)
    [told] = [record for record in caplog.records if record.name == "fuseline.serving"]
    assert "bundle" in told.getMessage()
    assert "broken" in told.fields["why"]


def test_without_reload_s_a_swap_waits_until_somebody_asks(
    make: Make, bundle: Path, champion: Path, tmp_path: Path
) -> None:
    async def run() -> tuple[str, str]:
        app = make(champion, reload_s=0)
        async with reach(app) as client:
            swap(champion, another(bundle, tmp_path / "next", "next"))
            await asyncio.sleep(0.3)
            before = await name_of(client)
            app.state.reloader.ask()
            await until(client, "fuseline_reloads_total", 1)
            return before, await name_of(client)

    assert asyncio.run(run()) == ("tiny", "next")


def test_links_in_a_circle_do_not_end_the_look_out(make: Make, bundle: Path, champion: Path, tmp_path: Path) -> None:
    async def run() -> str:
        async with reach(make(champion, reload_s=0.05)) as client:
            swap(champion, champion)
            await asyncio.sleep(0.3)
            swap(champion, another(bundle, tmp_path / "next", "next"))
            await until(client, "fuseline_reloads_total", 1)
            return await name_of(client)

    assert asyncio.run(run()) == "next"


def test_a_server_does_not_start_with_a_broken_bundle(bundle: Path, tmp_path: Path) -> None:
    broken = another(bundle, tmp_path / "broken", "broken")
    (broken / "model.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match=r"model\.onnx: altered"):
        create_app(broken)


def test_the_digest_that_is_told_is_of_what_was_loaded(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = another(bundle, tmp_path / "place", "first")

    def load_then_overwrite(*arguments: Any) -> Predictor:
        found = Predictor(*arguments)
        (place / "bundle.json").write_bytes((bundle / "bundle.json").read_bytes())
        return found

    assert load(place, CPU).digest == sha256_of(place / "bundle.json")
    monkeypatch.setattr(loading, "Predictor", load_then_overwrite)
    with pytest.raises(BundleError, match="another bundle was written here"):
        load(place, CPU)


def test_the_bundle_is_opened_as_settings_say(bundle: Path) -> None:
    loaded = load(bundle, Settings(providers=("CPUExecutionProvider",), threads=3))
    assert loaded.predictor.session.get_session_options().intra_op_num_threads == 3
    with pytest.raises(BundleError, match="none of NoSuchProvider can work here"):
        load(bundle, Settings(providers=("NoSuchProvider",)))


@pytest.mark.parametrize("modality", ["text", "image", "audio"])
def test_the_sample_row_can_be_read_as(modality: str, readers: dict[str, Reader]) -> None:
    value = getattr(sample([modality]), modality)
    reader = readers.get(modality) or AudioReader(8000, 1.0)
    assert reader.read(value) is not None
