"""Part of the benchmark: the reference pair, BERT-base with ResNet-50, in torch and as it is exported.

Weights are drawn by chance: what is measured is time, and how far the graphs are from torch. Run apart, as
`python -m benchmarks.pair FOLDER`, with the providers that can work here; needs neither DVC, Prefect nor a data set.
"""

from __future__ import annotations

import argparse
import json
import shutil
import string
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig

from fuseline.benchmark.made import make_rows
from fuseline.benchmark.measure import measure
from fuseline.benchmark.peers import open_peers
from fuseline.benchmark.running import Timer, provider_options
from fuseline.benchmark.show import find_best_torch
from fuseline.config import Benchmark as Conditions
from fuseline.export.bundle import Contents, code_digest, write_bundle
from fuseline.export.graph import count_nodes, write_graph
from fuseline.export.variants import write_variant
from fuseline.inputs.image import ImageReader
from fuseline.inputs.text import TextReader
from fuseline.models.combine import Combiner
from fuseline.models.ensemble import Ensemble
from fuseline.models.member import FusionConfig, FusionModel
from fuseline.records import Benchmark, Timed, Variant, write_json
from fuseline.runtime.bundle import MODEL
from fuseline.runtime.predictor import OUTPUTS, Feeds, Predictor
from fuseline.runtime.session import can_work
from fuseline.tasks.classification import Classification

TOKENS, SIDE = 64, 224
LABELS = [str(number) for number in range(8)]
VARIANTS: dict[bool, tuple[Variant, ...]] = {False: ("fused", "int8"), True: ("fused", "fp16")}
"""Those for a processor, and those for a GPU."""
MEMBERS, SEVERAL = 3, "several"
"""How many members one more bundle has, and what it is called."""
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
UNSEEN = [(1, 1, 1, 1), (1, 64, 224, 224), (2, 3, 48, 20), (3, 128, 300, 500), (5, 7, 31, 200), (8, 9, 33, 32),
          (4, 200, 640, 480), (17, 2, 64, 64)]  # fmt: skip
"""Rows, tokens, height and width, none as at export."""


def measure_pair(clone: Path) -> dict[str, Any]:
    """Time the pair in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.pair", str(clone / "pair")]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def build_pair(members: int = 1) -> Ensemble:
    """Return fusion members on both, whose encoders are equal, as if they were frozen."""
    torch.manual_seed(0)
    text = {"kind": "hugging-face-text", "architecture": BertConfig().to_dict(), "pooling": "mean"}
    image = {"kind": "torchvision", "name": "resnet50", "side": SIDE, "mean": [0.5] * 3, "std": [0.25] * 3,
             "blocks": None, "several": False}  # fmt: skip
    config = FusionConfig(
        modalities=["text", "image"], labels=LABELS, fusion="gated", hidden=256,
        encoders={"text": text, "image": image},
    )  # fmt: skip
    models = [FusionModel(config) for _ in range(members)]
    for model in models[1:]:
        model.encoders.load_state_dict(models[0].encoders.state_dict())
    weights = torch.full((members,), 1 / members)
    named = {f"member {number}": model for number, model in enumerate(models, start=1)}
    return Ensemble(named, Combiner(weights, torch.tensor(1.0), "geometric")).eval()


def make_tokenizer() -> Tokenizer:
    """Make one of words of four letters, each of them one token, as many as BERT's has."""
    words = ("".join(letters) for letters in product(string.ascii_lowercase, repeat=4))
    names = [*SPECIAL, *islice(words, BertConfig().vocab_size - len(SPECIAL))]
    tokenizer = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_truncation(512)
    tokenizer.enable_padding()
    return tokenizer


def write_bundles(ensemble: Ensemble, folder: Path, variants: Sequence[Variant]) -> dict[str, Any]:
    """Write a bundle of each variant, and one of several members; return what was done."""
    contents = Contents(
        name="pair", task=Classification(LABELS), members=ensemble.names, max_tokens=512, opset=20, data="0" * 64,
        card="# BERT-base with ResNet-50\n",
    )  # fmt: skip
    readers = {"text": TextReader(make_tokenizer()), "image": ImageReader()}
    plain = folder / "fp32" / MODEL
    plain.parent.mkdir(parents=True)
    traced = write_graph(ensemble, contents.opset, plain, contents.about())
    write_bundle(plain.parent, contents, ensemble, readers)
    done: dict[str, Any] = {}
    for name in variants:
        (folder / name).mkdir()
        own = replace(contents, variant=name)
        done[name] = write_variant(name, plain, folder / name / MODEL, own.about(), calibrate)
        write_bundle(folder / name, own, ensemble, readers)
    several = build_pair(MEMBERS)
    write_bundle(folder / SEVERAL, replace(contents, members=several.names), several, readers)
    names = ("fp32", *variants, SEVERAL)
    nodes = {name: count_nodes(ir.load(folder / name / MODEL)) for name in names}
    return {"nodes": {"traced": traced} | nodes, "done": done, "code": code_digest()}


def find_bundles(ensemble: Ensemble, folder: Path, variants: Sequence[Variant]) -> dict[str, Any]:
    """Write the bundles, unless this code has written the same before."""
    written = folder / "written.json"
    if written.exists():
        found: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
        if found.get("code") == code_digest() and found["done"].keys() == {*variants}:
            return found
    shutil.rmtree(folder, ignore_errors=True)
    found = write_bundles(ensemble, folder, variants)
    write_json(written, found)
    return found


def calibrate() -> Iterator[Feeds]:
    """Give inputs to measure ranges on."""
    yield from (draw(8, 100 + seed) for seed in range(4))


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


def find_differences(folder: Path, variants: Sequence[str], conditions: Conditions, torch_: Timer) -> dict[str, Any]:
    """Return how far each is from torch eager, as a share of the largest logit, at shapes it was not traced at."""
    asked = [draw(batch, 200 + seed, *of) for seed, (batch, *of) in enumerate(UNSEEN)]
    expected = [torch_(feeds)[1] for feeds in asked]
    found: dict[str, Any] = {}
    options = provider_options(conditions.cuda)
    for name in variants:
        session = Predictor(folder / name, conditions.providers, conditions.threads, options).session
        logits = [session.run(OUTPUTS, feeds)[1] for feeds in asked]
        pairs = list(zip(logits, expected, strict=True))
        found[name] = {
            "largest": max(float(np.abs(ours - theirs).max() / np.abs(theirs).max()) for ours, theirs in pairs),
            "argmax_agreement": float(np.mean([np.mean(a.argmax(1) == b.argmax(1)) for a, b in pairs])),
        }
    return found


def sum_up(found: Benchmark) -> dict[str, Any]:
    """Reduce a record to the graphs' own medians, and how many times as fast as torch each is, by batch size.

    Both sides of such a ratio are medians of pairs with the bundle in single precision, so that all rest on one clock.
    """
    sides: Mapping[str, Timed] = {"fp32": found, **found.others}
    kept = ("device", "valid", "invalid_because", "cuda", "versions", "clocks_mhz", "cpu", "threads", "ceilings")
    summed: dict[str, Any] = {name: getattr(found, name) for name in kept}
    for batch in found.batches:
        times = {name: side.batches[batch].graph_p50_ms or 0.0 for name, side in sides.items()}
        pairs = {name: one.graph_faster.get(batch) for name, one in found.others.items()}
        faster = {"fp32": 1.0} | {name: pair.value for name, pair in pairs.items() if pair}
        best = find_best_torch(found, batch)
        if best not in faster:
            continue  # torch ran on another device
        summed[batch] = {
            "graph_p50_ms": times,
            "copy_p50_ms": {name: side.batches[batch].copy_p50_ms for name, side in sides.items()},
            "best_of_torch": best,
            "against_eager": {name: of / faster["torch eager"] for name, of in faster.items()},
            "against_best": {name: of / faster[best] for name, of in faster.items()},
        }
    summed["bytes"] = {name: side.model_bytes for name, side in sides.items() if side.model_bytes is not None}
    summed["roofline"] = {name: one.share for name, one in found.roofline.items()}
    summed["fallen"] = {name: side.fallen for name, side in sides.items() if side.fallen}
    return summed


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="gets a bundle of each variant, if it is not there yet")
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--cuda-graph", action="store_true")
    parser.add_argument("--tf32", action="store_true")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="torch.compile too")
    parser.add_argument("--output", type=Path, help="file of the whole record")
    return parser.parse_args()


def main() -> None:
    """Print what was found as one line of JSON."""
    asked = parse()
    conditions = Conditions.model_validate({
        "providers": ["CUDAExecutionProvider", "CPUExecutionProvider"], "rows": 64, "threads": asked.threads,
        "batch_sizes": asked.batch_size, "warmup": 4, "calls": asked.calls, "offline": None, "server": None,
        "roofline": 10, "confidence": 0.95, "seed": 0,
        "cuda": {"io_binding": True, "pinned": True, "graph": asked.cuda_graph, "tf32": asked.tf32},
    })  # fmt: skip
    on_gpu = can_work(conditions.providers[0])
    variants = VARIANTS[on_gpu]
    ensemble = build_pair()
    written = find_bundles(ensemble, asked.folder, variants)
    peers: dict[str, Timer] = {}

    def open_torch(on_gpu: bool) -> dict[str, Timer]:
        found = open_peers(ensemble, conditions, on_gpu)
        peers.update({name: timer for name, timer in found.items() if asked.compile or "compile" not in name})
        return peers

    rows = make_rows(asked.folder / "fp32", 64, SIDE, TOKENS - 2, 1.0, 0)
    others: dict[str, Path] = {name: asked.folder / name for name in (*variants, SEVERAL)}
    found = measure(asked.folder / "fp32", rows, conditions, others, open_torch)
    if asked.output:
        found.write(asked.output)
    plain = conditions.model_copy(update={"cuda": conditions.cuda.model_copy(update={"graph": False})})
    differences = find_differences(asked.folder, ("fp32", *variants), plain, peers["torch eager"])
    print(json.dumps(written | sum_up(found) | {"differences": differences}))


if __name__ == "__main__":
    main()
