"""`fuseline serve` as a process: flags, signals, and what it writes."""

from __future__ import annotations

import http.client
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.conftest import another, swap

ASK = b'{"rows": [{"text": "sea"}]}'
HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


class Server:
    """A running `fuseline serve`, and its lines as they come."""

    def __init__(self, *arguments: str | Path) -> None:
        command = [sys.executable, "-c", "from fuseline.cli import app; app()", "serve", *map(str, arguments)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        env=os.environ | {"PYTHONUNBUFFERED": "1"})  # fmt: skip
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.address = re.search(r"http://([\d.]+):(\d+)", self.wait_for("Uvicorn running")["event"])
        assert self.address

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(json.loads(line))

    def wait_for(self, event: str) -> dict[str, Any]:
        while True:
            found = self._lines.get(timeout=30)
            if event in found["event"]:
                return found

    @property
    def port(self) -> int:
        assert self.address
        return int(self.address[2])

    def ask(self, path: str = "/v1/predict", body: bytes | None = ASK) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=20) as response:
            return json.load(response)


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    """Give the starter of servers; they end with the test."""
    running: list[Server] = []

    def run(*arguments: str | Path) -> Server:
        running.append(Server(*arguments, "--port", "0", "--threads", "1", "--provider", "CPUExecutionProvider"))
        return running[-1]

    yield run
    for server in running:
        server.process.kill()
        server.process.communicate(timeout=20)


def test_it_listens_on_loopback_and_its_log_is_json(bundle: Path, start: Callable[..., Server]) -> None:
    server = start(bundle)
    assert server.address
    assert server.address[1] == "127.0.0.1"
    assert server.ask()["answers"][0]["label"]
    line = server.wait_for("request")
    assert (line["path"], line["status"], line["rows"], line["client"]) == ("/v1/predict", 200, 1, "127.0.0.1")


def test_hup_takes_over_what_stands_at_the_place(
    bundle: Path, champion: Path, tmp_path: Path, start: Callable[..., Server]
) -> None:
    server = start(champion, "--reload-s", "0")
    swap(champion, another(bundle, tmp_path / "next", "next"))
    assert server.ask()["model"]["name"] == "tiny"
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("bundle swapped")
    assert server.ask()["model"]["name"] == "next"


def test_told_to_stop_it_answers_who_is_inside_and_takes_nobody_else(
    bundle: Path, start: Callable[..., Server]
) -> None:
    server = start(bundle)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as inside:
        inside.sendall(HEAD % len(ASK) + ASK[:5])
        while "fuseline_requests_inside 1.0" not in metrics(server):
            time.sleep(0.02)
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("Shutting down")
        time.sleep(0.3)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), timeout=5)
        inside.sendall(ASK[5:])
        assert inside.recv(100).startswith(b"HTTP/1.1 200")
    assert server.process.wait(20) == -signal.SIGTERM


def test_told_to_stop_under_load_it_loses_no_request_and_sends_clients_away(
    bundle: Path, start: Callable[..., Server]
) -> None:
    server, ends, answered = start(bundle, "--max-wait-ms", "50"), [], []

    def ask() -> None:
        """Ask again and again on one connection, and on another where the server closed it."""
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            try:
                connection.connect()
            except ConnectionRefusedError:
                return
            try:
                while True:
                    connection.request("POST", "/v1/predict", ASK, {"Content-Type": "application/json"})
                    response = connection.getresponse()
                    response.read()
                    answered.append(response.status)
                    if response.will_close:
                        break
            except (OSError, http.client.HTTPException) as error:
                ends.append(repr(error))
            connection.close()

    asking = [threading.Thread(target=ask) for _ in range(8)]
    for each in asking:
        each.start()
    while len(answered) < 40:
        time.sleep(0.02)
    server.process.send_signal(signal.SIGTERM)
    for each in asking:
        each.join(30)
    assert ends == []
    assert set(answered) == {200}
    assert server.process.wait(20) == -signal.SIGTERM


def test_a_fault_stands_in_the_log_under_the_id_that_the_client_was_told(bundle: Path) -> None:
    """The server as it is, but for a graph that fails."""
    code = (
        "from fuseline.serving import batching, server; from fuseline.serving.settings import Settings\n"
        "from pathlib import Path; import sys\n"
        "batching.answer_requests = lambda *_: 1 / 0\n"
        "server.serve(Path(sys.argv[1]), '127.0.0.1', 0, Settings(providers=('CPUExecutionProvider',), threads=1))"
    )
    with subprocess.Popen([sys.executable, "-c", code, bundle], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        lines = (json.loads(line) for line in process.stdout)
        [port] = next(found for line in lines if (found := re.findall(r"127\.0\.0\.1:(\d+)", line["event"])))
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=20)
        connection.request("POST", "/v1/predict", ASK, {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        connection.close()
        told = next(line["traceback"] for line in lines if "traceback" in line)
        process.kill()
    number = response.headers["x-request-id"]
    assert response.status == 500
    assert "ZeroDivisionError" in told
    assert told.endswith(f"request {number}")


def test_hup_does_not_end_a_server_that_is_still_loading() -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from fuseline.serving import server\n"
        "server.create_app = lambda *_: os.kill(os.getpid(), signal.SIGHUP) or sys.exit(7)\n"
        "server.serve(Path(), '127.0.0.1', 0, server.Settings())"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 7


def test_who_is_inside_has_no_longer_than_drain_s(bundle: Path, start: Callable[..., Server]) -> None:
    server = start(bundle, "--drain-s", "1", "--deadline-s", "60")
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as inside:
        inside.sendall(HEAD % 99 + b"{")
        while "fuseline_requests_inside 1.0" not in metrics(server):
            time.sleep(0.02)
        server.process.send_signal(signal.SIGTERM)
        start_s = time.monotonic()
        server.process.wait(20)
    assert 0.9 < time.monotonic() - start_s < 10


def metrics(server: Server) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=20) as response:
        return str(response.read().decode())


def test_a_bundle_that_cannot_be_served_is_told_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from fuseline.cli import app; app()", "serve", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path}: no bundle.json here")
    assert "Traceback" not in done.stderr
