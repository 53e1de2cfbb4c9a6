"""Part of the benchmark: the reference pair, BERT-base with ResNet-50, in torch and as it is exported, graph by graph.

Weights are drawn by chance: what is measured is time, and how far the graphs are from torch. Run apart, as
`python -m benchmarks.pair FOLDER`, so that the threads of torch wait without taking a processor.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertConfig

from fuseline.benchmark.conditions import Watch, why_invalid
from fuseline.benchmark.loops import take_turns
from fuseline.benchmark.peers import open_peers
from fuseline.benchmark.percentiles import compare
from fuseline.config import load
from fuseline.export.graph import OUTPUTS, count_nodes, save, share, trace
from fuseline.export.variants import write_variant
from fuseline.models.combine import Combiner
from fuseline.models.ensemble import Ensemble
from fuseline.models.member import FusionConfig, FusionModel
from fuseline.records import Variant
from fuseline.runtime.predictor import Feeds, Run
from fuseline.runtime.session import open_session

TOKENS, SIDE, CALLS, WARMUP = 64, 224, 15, 3
VARIANTS: tuple[Variant, ...] = ("fused", "int8")
BATCHES = (1, 8)


def measure_pair(clone: Path) -> dict[str, Any]:
    """Time the pair in a process of its own."""
    passive = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-m", "benchmarks.pair", str(clone)]
    done = subprocess.run(command, check=True, env=passive, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def build_pair() -> Ensemble:
    """Return one fusion member on both."""
    torch.manual_seed(0)
    text = {"kind": "hugging-face-text", "architecture": BertConfig().to_dict(), "pooling": "mean"}
    image = {"kind": "torchvision", "name": "resnet50", "side": SIDE, "mean": [0.5] * 3, "std": [0.25] * 3,
             "blocks": None, "several": False}  # fmt: skip
    config = FusionConfig(
        modalities=["text", "image"], labels=[str(number) for number in range(8)], fusion="gated", hidden=256,
        encoders={"text": text, "image": image},
    )  # fmt: skip
    return Ensemble({"pair": FusionModel(config)}, Combiner(torch.ones(1), torch.tensor(1.0), "geometric")).eval()


def draw(batch: int, seed: int, tokens: int = TOKENS, height: int = SIDE, width: int = SIDE) -> Feeds:
    """Draw texts of different lengths and pictures of noise."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, tokens + 1, (batch, 1))
    lengths[0] = tokens
    return {
        "input_ids": random.integers(1000, 30000, (batch, tokens)),
        "attention_mask": (np.arange(tokens) < lengths).astype(np.int64),
        "has_text": np.ones(batch, bool),
        "pixels": random.integers(0, 256, (batch, height, width, 3), dtype=np.uint8),
        "has_image": np.ones(batch, bool),
    }


def export(ensemble: Ensemble, folder: Path) -> dict[str, Any]:
    """Write the graph as traced and in each variant; return what was done."""
    model = trace(ensemble, 20)
    nodes = {"exported": count_nodes(model)}
    share(model)
    for name in ("fp32", *VARIANTS):
        (folder / name).mkdir(parents=True, exist_ok=True)
    save(model, folder / "fp32" / "model.onnx", {})
    nodes["fp32"] = count_nodes(model)

    def rows() -> Iterator[Feeds]:
        yield from (draw(8, 100 + seed) for seed in range(4))

    done = {
        name: write_variant(name, folder / "fp32" / "model.onnx", folder / name / "model.onnx", {}, rows)
        for name in VARIANTS
    }
    sizes = {name: sum(path.stat().st_size for path in (folder / name).iterdir()) for name in ("fp32", *VARIANTS)}
    return {"nodes": nodes, "done": done, "bytes": sizes}


def time_sides(sides: Mapping[str, Run], threads: int) -> dict[str, Any]:
    """Ask all in turns, at each batch size; how many times as fast as torch eager and as the best of torch each is."""
    found: dict[str, Any] = {}
    for size in BATCHES:
        watch = Watch()
        calls = {name: _timer(run, size) for name, run in sides.items()}
        times = take_turns(calls, CALLS, WARMUP, 0)
        medians = {name: float(np.median(of)) for name, of in times.items()}
        best = min((name for name in times if name.startswith("torch")), key=medians.__getitem__)
        found[f"batch_{size}"] = {
            "p50_ms": medians,
            "best_of_torch": best,
            "against_eager": {name: compare(times["torch eager"], of).value for name, of in times.items()},
            "against_best": {name: compare(times[best], of).value for name, of in times.items()},
            "invalid_because": why_invalid(watch.read()),
        }
    return found | {"threads": threads, "calls": CALLS}


def _timer(run: Run, size: int) -> Callable[[int], float]:
    def call(turn: int) -> float:
        feeds = draw(size, turn)
        start = time.perf_counter()
        run(feeds)
        return (time.perf_counter() - start) * 1000

    return call


def find_differences(sides: Mapping[str, Run]) -> dict[str, Any]:
    """Return how far each is from torch eager, as a share of the largest logit, at shapes it was not traced at."""
    shapes = [(1, 1, 1, 1), (1, 64, 224, 224), (2, 3, 48, 20), (3, 128, 300, 500), (5, 7, 31, 200), (8, 9, 33, 32),
              (4, 200, 640, 480), (17, 2, 64, 64)]  # fmt: skip
    found: dict[str, Any] = {}
    for seed, (batch, tokens, height, width) in enumerate(shapes):
        feeds = draw(batch, 200 + seed, tokens, height, width)
        expected = sides["torch eager"](feeds)
        for name, run in sides.items():
            answers = run(feeds)
            off = float(np.abs(answers[1] - expected[1]).max() / np.abs(expected[1]).max())
            same = float((answers[1].argmax(1) == expected[1].argmax(1)).mean())
            worst = found.setdefault(name, {"largest": 0.0, "argmax_agreement": 1.0})
            worst["largest"] = max(worst["largest"], off)
            worst["argmax_agreement"] = min(worst["argmax_agreement"], same)
    return found


def main(clone: Path) -> None:
    """Print all as one line of JSON."""
    conditions = load(clone / "params.yaml").benchmark
    ensemble = build_pair()
    exported = export(ensemble, clone / "pair")
    sides: dict[str, Run] = open_peers(ensemble, conditions, on_gpu=False)
    for name in ("fp32", *VARIANTS):
        session = open_session(clone / "pair" / name / "model.onnx", ["CPUExecutionProvider"], conditions.threads)
        sides[name] = lambda feeds, session=session: session.run(OUTPUTS, feeds)  # type: ignore[misc]
    timed = time_sides(sides, conditions.threads)
    graphs = {name: run for name, run in sides.items() if name == "torch eager" or not name.startswith("torch")}
    print(json.dumps(exported | timed | {"differences": find_differences(graphs)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
