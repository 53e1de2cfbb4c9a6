"""Rows in, answers out; whoever asks wrongly is told what was expected, and the others never notice."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from fuseline.runtime.predictor import Predictor, Row
from fuseline.serving import batching
from fuseline.serving.meters import Meters
from tests.conftest import COLORS, paint
from tests.serving.conftest import b64, metric, reach

Make = Callable[..., FastAPI]
RED = paint(COLORS["red"])
JSON = {"content-type": "application/json"}


def post(app: FastAPI, *bodies: Any, **options: Any) -> list[httpx.Response]:
    """Send bodies at once, JSON unless options say otherwise."""

    async def run() -> list[httpx.Response]:
        async with reach(app) as client:
            asked = [client.post("/v1/predict", **({"json": body} if body is not None else {}), **options)
                     for body in bodies]  # fmt: skip
            return await asyncio.gather(*asked)

    return asyncio.run(run())


def get(app: FastAPI, path: str) -> httpx.Response:
    async def run() -> httpx.Response:
        async with reach(app) as client:
            return await client.get(path)

    return asyncio.run(run())


async def held(body: bytes, until: asyncio.Event) -> AsyncIterator[bytes]:
    """Send a body's first byte at once, the others when told."""
    yield body[:1]
    await until.wait()
    yield body[1:]


def document(row: Row) -> dict[str, Any]:
    return {"text": row.text, "image": b64(row.image)} if row.image else {"text": row.text}


def test_requests_at_once_are_answered_as_the_runtime_answers_them_one_by_one(
    make: Make, bundle: Path, rows: list[Row]
) -> None:
    predictor = Predictor(bundle, ["CPUExecutionProvider"], 1)
    expected = [predictor.task.answer(row.text, next(predictor.answer([row])).probabilities) for row in rows]
    found = post(make(), *({"rows": [document(row)]} for row in rows))
    for response, answer in zip(found, expected, strict=True):
        [told] = response.json()["answers"]
        assert told["label"] == answer["label"]
        np.testing.assert_allclose([*told["probabilities"].values()], [*answer["probabilities"].values()], atol=1e-5)


def test_answers_come_in_order_with_the_ids_that_were_given(make: Make) -> None:
    [done] = post(make(), {"rows": [{"id": "b", "text": "sea"}, {"text": "rose"}, {"id": 7, "text": "sea"}]})
    first, second, third = done.json()["answers"]
    assert (first["id"], third["id"]) == ("b", 7)
    assert "id" not in second
    assert first["probabilities"] == third["probabilities"] != second["probabilities"]


def test_a_form_says_the_same_as_json(make: Make) -> None:
    app = make()
    [as_json] = post(app, {"rows": [{"id": "x", "text": "the rose", "image": b64(RED)}]})
    [as_form] = post(make(), None, data={"text": "the rose", "id": "x"}, files={"image": ("a.png", RED)})
    asked = json.dumps({"rows": [{"id": "x", "text": "the rose", "image": "first"}]})
    [as_rows] = post(make(), None, data={"rows": asked}, files={"first": ("a.png", RED)})
    assert as_json.json()["answers"] == as_form.json()["answers"] == as_rows.json()["answers"]


REFUSED = {
    "is no JSON": (b'{"rows": ', 400, "json", "not JSON: EOF"),
    "is no UTF-8": (b'{"rows": [{"text": "\xff"}]}', 400, "json", "not JSON"),
    "is nested without end": (b"[" * 100_000, 400, "json", "recursion"),
    "is a list": (b"[]", 422, "body", "the body"),
    "has no rows": (b'{"rows": []}', 422, "body", "at least 1"),
    "has an unknown key": (b'{"rows": [{"text": "a"}, {"txt": "a"}]}', 422, 2, "row 2: txt: unknown key; expected id"),
    "has a number for a text": (b'{"rows": [{"text": 1}]}', 422, 1, "row 1: text: Input should be a valid string"),
    "has half a surrogate": (rb'{"rows": [{"text": "\ud800"}]}', 400, "json", "hex escape"),
    "has a row of nothing": (b'{"rows": [{"text": "a"}, {}]}', 422, 2, "row 2 has none of text, image"),
    "has no base64": (b'{"rows": [{"image": "a.png"}]}', 422, 1, "row 1: image or audio is no base64"),
    "has a text file for a picture": (b'{"rows": [{"image": "aGVsbG8="}]}', 422, 1, "of no known picture format"),
    "has two pictures for one": (json.dumps({"rows": [{"image": [b64(RED)] * 2}]}).encode(), 422, 1, "2 pictures"),
    "has half a picture": (json.dumps({"rows": [{"image": b64(RED[:60])}]}).encode(), 422, 1, "cannot be decoded"),
    "has boxes without a text": (b'{"rows": [{"boxes": [[0, 1, 0, 0, 9, 9]]}]}', 422, 1, "without a text"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_body_is_refused_that(case: tuple[bytes, int, str | int, str], make: Make) -> None:
    body, status, kind, words = case

    async def run() -> tuple[httpx.Response, httpx.Response]:
        async with reach(make()) as client:
            refused = await client.post("/v1/predict", content=body, headers={"content-type": "application/json"})
            return refused, await client.post("/v1/predict", json={"rows": [{"text": "sea"}]})

    refused, after = asyncio.run(run())
    told = refused.json()
    assert (refused.status_code, after.status_code) == (status, 200), told
    assert refused.headers["content-type"] == "application/problem+json"
    assert told["type"] == f"urn:fuseline:{'row' if isinstance(kind, int) else kind}"
    assert told.get("row") == (kind if isinstance(kind, int) else None)
    assert words in told["detail"]


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"data": {"txt": "a"}, "files": {"image": ("a", RED)}}, 422, "unknown part 'txt'"),
        ({"files": {"image": ("a", b"no picture")}}, 422, "row 1: picture cannot be decoded"),
        ({"files": [("text", (None, "a")), ("text", (None, "b"))]}, 422, "the part 'text' is there twice"),
        ({"files": [("image", (None, "a"))]}, 422, "the part 'image' is no file"),
        ({"data": {"rows": '{"rows": [{"image": "b"}]}'}, "files": {"a": ("a", RED)}}, 422, "named 'b'; there are a"),
        ({"content": b"--x", "headers": {"content-type": "multipart/form-data"}}, 400, "Missing boundary"),
        ({"content": b"nothing", "headers": {"content-type": "multipart/form-data; boundary=x"}}, 400, "no form"),
        ({"content": b"a=b", "headers": {"content-type": "application/x-www-form-urlencoded"}}, 415, "expected appl"),
    ],
)
def test_a_form_is_refused_with(options: dict[str, Any], status: int, words: str, make: Make) -> None:
    [refused] = post(make(), None, **options)
    assert (refused.status_code, words in refused.json()["detail"]) == (status, True), refused.text


WIDE = paint(width=300, height=200)
BOMB = paint(1, 20_000, 20_000, mode="1")


def icon(inside: bytes) -> bytes:
    """Write an ICO that says 16 x 16, whatever it holds."""
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inside), 22) + inside


LIMITS = {
    "max_rows": ({"rows": [{"text": "a"}] * 3}, {"max_rows": 2}, 413, "more than 2 rows"),
    "max_chars": ({"rows": [{"text": "a"}, {"text": "abcd"}]}, {"max_chars": 3}, 413, "row 2: text of 4 characters"),
    "max_pixels": ({"rows": [{"image": b64(WIDE)}]}, {"max_pixels": 59_999}, 413, "row 1: pictures of 60,000 pixels"),
    "max_pictures": (
        {"rows": [{"image": [b64(RED)] * 3}]},
        {"max_pictures": 2},
        413,
        "row 1: 3 pictures; expected at most 2",
    ),
    "max_values": (
        {"rows": [{"text": "a b", "boxes": [[0, 1, 0, 0, 9, 9]] * 3}]},
        {"max_values": 20},
        413,
        "more than 20",
    ),
    "an icon with a bomb": ({"rows": [{"image": b64(icon(BOMB))}]}, {}, 422, "no known picture format"),
    "a bomb": ({"rows": [{"image": b64(BOMB)}]}, {}, 413, "more pixels than any camera has"),
    "max_body_bytes": ({"rows": [{"text": "a" * 99}]}, {"max_body_bytes": 99}, 413, "the body is larger than 99 bytes"),
}


@pytest.mark.parametrize("case", LIMITS.values(), ids=LIMITS)
def test_a_limit_holds(case: tuple[Any, dict[str, Any], int, str], make: Make) -> None:
    body, settings, status, words = case
    [refused], [taken] = post(make(**settings), body), post(make(), body)
    passes = 422 if "max_pictures" in settings else 200  # the bundle takes one
    assert (refused.status_code, taken.status_code) == (status, passes if settings else status)
    assert words in refused.json()["detail"]


def test_no_more_rows_are_built_than_allowed(make: Make) -> None:
    [refused] = post(make(max_rows=2), {"rows": [{"text": "a"}] * 3 + [{"text": 1}]})
    assert refused.json()["detail"].startswith("more than 2 rows")  # or the fourth would be told


@pytest.mark.parametrize("value", [b"0", b"[]", b"{}", b'""', b"[0,1,0,0,9,9]"])
def test_a_body_of_millions_of_values_is_refused_before_they_are_made(value: bytes, make: Make) -> None:
    body = b'{"rows": [{"text": "a", "boxes": [' + b",".join([value] * 1_000_000) + b"]}]}"
    start = time.monotonic()
    [refused] = post(make(), None, content=body, headers={"content-type": "application/json"})
    assert (refused.status_code, refused.json()["type"]) == (413, "urn:fuseline:values")
    assert time.monotonic() - start < 5  # made, they took a minute and gigabytes


def test_commas_and_brackets_in_texts_are_no_values(make: Make) -> None:
    [taken] = post(make(max_values=20), {"rows": [{"text": "[{," * 30 + '\\"[,[' * 30 + "\\"}]})
    assert taken.status_code == 200


@pytest.mark.parametrize(
    ("boxes", "status", "words"),
    [("[[0, 1, 0, 0, 9, 9]]", 200, ""), ('[]}, {"text": "b"', 400, "the part 'boxes' is not JSON"),
     ("[" + "0," * 30 + "0]", 413, "more than 20"), ("[1]", 422, "row 1: boxes")],
)  # fmt: skip
def test_boxes_of_a_form_are_json_of_their_own(boxes: str, status: int, words: str, make: Make) -> None:
    [told] = post(make(max_values=20), None, data={"text": "a b", "boxes": boxes}, files={"image": ("a.png", RED)})
    assert (told.status_code, words in told.json().get("detail", "")) == (status, True), told.text


async def first_and_second(
    make: Make, body: bytes, length: dict[str, str], **settings: Any
) -> tuple[httpx.Response, httpx.Response]:
    """Send a request, and another while the first one's body is on its way; `length` are headers."""
    release, kind = asyncio.Event(), {"content-type": "application/json"} | length
    async with reach(make(**settings)) as client:
        first = asyncio.create_task(client.post("/v1/predict", content=held(body, release), headers=kind))
        while await metric(client, "fuseline_requests_inside") < 1:
            await asyncio.sleep(0.01)
        second = await client.post("/v1/predict", content=body, headers=kind)
        release.set()
        return await first, second


@pytest.mark.parametrize(("most", "status"), [(53, 503), (54, 200), (10, 503)])
def test_bodies_inside_are_no_larger_together_than_allowed_but_one_is_always_let_in(
    most: int, status: int, make: Make
) -> None:
    body = b'{"rows": [{"text": "sea"}]}'
    length = {"content-length": str(len(body))}
    found = asyncio.run(asyncio.wait_for(first_and_second(make, body, length, max_inside_bytes=most), 20))
    assert [each.status_code for each in found] == [200, status]
    assert ("retry-after" in found[1].headers) is (status == 503)


@pytest.mark.parametrize(("most", "status"), [(1999, 503), (2000, 200)])
def test_a_chunked_body_counts_as_the_largest_whatever_length_it_announces(most: int, status: int, make: Make) -> None:
    limits = {"max_body_bytes": 1000, "max_inside_bytes": most}
    lies = {"transfer-encoding": "chunked", "content-length": "1"}
    found = asyncio.run(asyncio.wait_for(first_and_second(make, b'{"rows": [{"text": "sea"}]}', lies, **limits), 20))
    assert [each.status_code for each in found] == [200, status]


def test_the_length_that_a_chunked_body_announces_is_no_reason_to_refuse_it(make: Make) -> None:
    lies = {"content-type": "application/json", "transfer-encoding": "chunked", "content-length": "99999"}
    [taken] = post(make(max_body_bytes=1000), None, content=b'{"rows": [{"text": "sea"}]}', headers=lies)
    assert taken.status_code == 200


def test_who_leaves_before_the_body_is_there_is_no_fault_of_the_server(make: Make) -> None:
    async def run() -> tuple[int, bytes]:
        app, sent = make(), []
        messages = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
        scope = {"type": "http", "method": "POST", "path": "/v1/predict", "raw_path": b"/v1/predict",
                 "headers": [(b"content-type", b"application/json")], "query_string": b"", "http_version": "1.1",
                 "scheme": "http", "client": ("127.0.0.1", 1), "server": ("here", 80)}  # fmt: skip

        async def receive() -> Any:
            return messages.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        async with app.router.lifespan_context(app):
            await app(scope, receive, send)
        return sent[0]["status"], sent[1]["body"]

    status, told = asyncio.run(run())
    assert (status, json.loads(told)["type"]) == (400, "urn:fuseline:gone")


def test_a_body_of_unknown_length_is_read_no_further_than_allowed(make: Make) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1000
            yield b" " * 1000

    [refused] = post(make(max_body_bytes=5000), None, content=endless(), headers={"content-type": "application/json"})
    assert refused.status_code == 413
    assert sent <= 7000


def test_a_request_too_many_is_sent_away_before_its_body_is_read(make: Make) -> None:
    async def run() -> tuple[httpx.Response, httpx.Response]:
        release = asyncio.Event()
        async with reach(make(max_requests=1)) as client:
            body = held(b'{"rows": [{"text": "sea"}]}', release)
            kind = {"content-type": "application/json"}
            first = asyncio.create_task(client.post("/v1/predict", content=body, headers=kind))
            while await metric(client, "fuseline_requests_inside") < 1:
                await asyncio.sleep(0.01)
            second = await client.post("/v1/predict", content=held(b"{}", asyncio.Event()), headers=kind)
            release.set()
            return await first, second

    first, second = asyncio.run(asyncio.wait_for(run(), 20))
    assert (first.status_code, second.status_code) == (200, 503)
    assert int(second.headers["retry-after"]) >= 1
    assert second.json()["type"] == "urn:fuseline:busy"


def test_a_body_that_does_not_arrive_in_time_is_given_up(make: Make) -> None:
    body = held(b"{}", asyncio.Event())
    [late] = post(make(deadline_s=0.2), None, content=body, headers={"content-type": "application/json"})
    assert (late.status_code, late.json()["type"]) == (408, "urn:fuseline:slow")


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Give what the graph waits for before each batch."""
    gate, real = threading.Event(), batching.answer_requests

    def wait(*arguments: Any) -> Any:
        gate.wait(20)
        return real(*arguments)

    monkeypatch.setattr(batching, "answer_requests", wait)
    return gate


def test_an_answer_that_is_not_there_in_time_is_given_up_and_the_server_goes_on(
    make: Make, gate: threading.Event
) -> None:
    async def run() -> tuple[httpx.Response, httpx.Response, float]:
        async with reach(make(deadline_s=0.3)) as client:
            late = await client.post("/v1/predict", json={"rows": [{"text": "sea"}]})
            gate.set()
            return late, await client.post("/v1/predict", json={"rows": [{"text": "sea"}]}), 0.0

    late, after, _ = asyncio.run(run())
    assert (late.status_code, late.json()["type"], late.headers["retry-after"]) == (503, "urn:fuseline:deadline", "1")
    assert after.status_code == 200


@pytest.mark.parametrize(("most", "batches"), [(1, 6), (4, 3), (16, 2)])
def test_what_waits_for_the_graph_goes_in_together_up_to_max_batch(
    most: int, batches: int, make: Make, gate: threading.Event
) -> None:
    async def run() -> float:
        async with reach(make(max_batch=most)) as client:
            asked = [asyncio.create_task(client.post("/v1/predict", json={"rows": [{"text": "sea"}]}))]
            while await metric(client, "fuseline_requests_inside") < 1:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)  # the first is alone in its batch
            asked += [asyncio.create_task(client.post("/v1/predict", json={"rows": [{"text": "sea"}]}))
                      for _ in range(5)]  # fmt: skip
            while await metric(client, "fuseline_rows_waiting") < 5:
                await asyncio.sleep(0.01)
            gate.set()
            assert {(await one).status_code for one in asked} == {200}
            assert await metric(client, "fuseline_batch_rows_sum") == 6
            return await metric(client, "fuseline_batch_rows_count")

    assert asyncio.run(run()) == batches


@pytest.mark.parametrize(("wait_ms", "at_least_s", "below_s"), [(0.0, 0.0, 0.7), (1000.0, 1.0, 5.0)])
def test_a_batch_waits_for_others_as_long_as_max_wait(
    wait_ms: float, at_least_s: float, below_s: float, make: Make
) -> None:
    async def run() -> float:
        release = asyncio.Event()
        async with reach(make(max_wait_ms=wait_ms)) as client:
            alone = await client.post("/v1/predict", json={"rows": [{"text": "sea"}]})
            assert alone.elapsed.total_seconds() < 0.7  # whoever is alone does not wait
            body, kind = held(b'{"rows": [{"text": "sea"}]}', release), {"content-type": "application/json"}
            slow = asyncio.create_task(client.post("/v1/predict", content=body, headers=kind))
            while await metric(client, "fuseline_requests_inside") < 1:
                await asyncio.sleep(0.01)
            start = time.monotonic()
            await client.post("/v1/predict", json={"rows": [{"text": "sea"}]})
            took = time.monotonic() - start
            release.set()
            await slow
            return took

    assert at_least_s <= asyncio.run(run()) < below_s


def test_a_fault_is_told_without_its_insides_and_spoils_no_other_request(
    make: Make, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = batching.answer_requests

    def fail(predictor: Any, requests: Any, most: int) -> Any:
        if any(row.text == "poison" for rows in requests for row in rows):
            raise RuntimeError("secret insides")
        return real(predictor, requests, most)

    monkeypatch.setattr(batching, "answer_requests", fail)
    gate.set()
    found = post(make(max_wait_ms=500), *({"rows": [{"text": text}]} for text in ("sea", "poison", "rose")))
    assert [each.status_code for each in found] == [200, 500, 200]
    assert "secret" not in found[1].text
    assert "Traceback" not in found[1].text
    assert found[1].json()["type"] == "urn:fuseline:fault"
    assert found[1].headers["x-request-id"] in found[1].json()["detail"]


def test_a_server_that_answers_no_more_says_so_and_why(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no more")

    monkeypatch.setattr(Meters, "batch", fail)

    async def run() -> list[tuple[int, str]]:
        async with reach(make(deadline_s=0.3)) as client:
            asked = await client.post("/v1/predict", json={"rows": [{"text": "sea"}]})
            pages = [await client.get(f"/health/{page}") for page in ("ready", "live")]
            later = await client.post("/v1/predict", content=held(b"{}", asyncio.Event()), headers=JSON)
            assert "retry-after" not in later.headers
            return [(each.status_code, each.json()["type"]) for each in (asked, *pages, later)]

    assert asyncio.run(run()) == [(503, "urn:fuseline:deadline"), *[(503, "urn:fuseline:stopped")] * 3]
    [told] = [record for record in caplog.records if record.levelname == "CRITICAL"]
    assert told.exc_info
    assert "no more" in str(told.exc_info[1])


def test_the_card_tells_labels_inputs_and_digest(make: Make, labels: list[str]) -> None:
    card = get(make(), "/v1/model").json()
    assert card["labels"] == labels
    assert card["inputs"]["pixels"] == "uint8 [batch, height, width, 3], RGB"
    assert len(card["digest"]) == 64
    assert card["device"].startswith("CPU")


@pytest.mark.parametrize(
    ("path", "status"), [("/health/live", 200), ("/health/ready", 200), ("/docs", 200), ("/x", 404)]
)
def test_a_page_answers(path: str, status: int, make: Make) -> None:
    found = get(make(), path)
    assert found.status_code == status
    if status == 404:
        assert found.json()["type"] == "urn:fuseline:http"


def test_the_schema_that_is_shown_is_the_one_that_is_held_against(make: Make) -> None:
    schema = get(make(), "/openapi.json").json()
    content = schema["paths"]["/v1/predict"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "multipart/form-data"}
    row = content["application/json"]["schema"]["properties"]["rows"]["items"]
    assert set(row["properties"]) == {"id", "text", "image", "audio", "boxes"}
    assert row["additionalProperties"] is False


def test_the_log_has_a_line_for_each_request_without_what_it_held(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "fuseline.access")
    [done] = post(make(), {"rows": [{"text": "a secret"}, {"text": "b"}]})
    [fields] = [record.fields for record in caplog.records if record.name == "fuseline.access"]
    assert {key: fields[key] for key in ("method", "path", "status", "rows")} == {
        "method": "POST", "path": "/v1/predict", "status": 200, "rows": 2,
    }  # fmt: skip
    assert fields["id"] == done.headers["x-request-id"]
    assert "secret" not in json.dumps(fields)
