"""Part of the benchmark that takes in, validates and splits data at 10 k, 100 k and 1 M rows, beside the plain way.

Each step runs in a process of its own, so that its memory is its own. `more` is what a second batch of a hundredth of
the rows costs, step by step. What a row costs is told between two sizes: starting the processes is not in it.

The batch is made up: texts of 4 to 20 words drawn by Zipf's law from 20,000, one of 8 labels, a PNG of 48 x 48 noise on
every tenth row; of 1,000 rows each, 5 have an unknown label, 2 a blank text, and one of the pictures is cut off.
The plain way is a Great Expectations suite on pandas that names bad rows by id, one loop over the pictures with
Pillow, and a hash of each group: the same rules as far as they are about rows, no duplicates, no shard, no facts. It
looks at everything again whenever rows come in.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from benchmarks import spine
from fuseline import config
from fuseline.lineage.process import python_env

SIZES = (10_000, 100_000, 1_000_000)
LABELS = [f"label {number}" for number in range(8)]
CHUNK = 10_000
OURS = ("ingest", "validate", "prepare")


def measure_sizes(clone: Path) -> dict[str, Any]:
    """Measure each size with the code and params of a clone."""
    found: dict[str, Any] = {f"{rows}": measure(clone, rows) for rows in SIZES}
    cpu_s = [sum(found[f"{rows}"][step]["cpu_s"] for step in OURS) for rows in SIZES]
    found["cpu_us_per_row"] = {
        f"{small} to {large}": 1e6 * (after_s - before_s) / (large - small)
        for (small, before_s), (large, after_s) in itertools.pairwise(zip(SIZES, cpu_s, strict=True))
    }
    return found | {"noop": measure_noop(clone)}


def measure_noop(clone: Path, rows: int = 200_000) -> dict[str, Any]:
    """Time how long DVC takes to find that nothing is to be done for a data set of so many rows."""
    write_params(clone / "params.yaml", clone)
    make_batch(clone / "batch.parquet", rows)
    shutil.rmtree(clone / "data")
    run(clone, "ingest", clone)
    spine.dvc(clone, "add", "data")
    spine.dvc(clone, "repro", "prepare")
    times_s = [spine.dvc(clone, "repro", "prepare")[0] for _ in range(3)]
    return {"rows": rows, "dvc_repro_seconds": float(np.median(times_s))}


def measure(clone: Path, rows: int) -> dict[str, Any]:
    """Time each step on a batch of so many rows, the plain way before and after; then on a hundredth more."""
    with tempfile.TemporaryDirectory(prefix="fuseline-bench-") as scratch:
        folder = Path(scratch)
        write_params(clone / "params.yaml", folder)
        make_batch(folder / "batch.parquet", rows)
        steps = {step: run(clone, step, folder) for step in ("plain", *OURS)}
        again = run(clone, "plain", folder)
        make_batch(folder / "batch.parquet", max(rows // 100, 1000), first=rows)
        more = {step: run(clone, step, folder) for step in OURS}
    plain_s = (steps["plain"]["wall_s"] + again["wall_s"]) / 2
    ours_s, more_s = (sum(found[step]["wall_s"] for step in OURS) for found in (steps, more))
    return steps | {
        "plain_again": again, "more": more,
        "plain_over_ours": plain_s / ours_s, "plain_over_validate": plain_s / steps["validate"]["wall_s"],
        "plain_over_more": plain_s / more_s,
    }  # fmt: skip


def run(clone: Path, step: str, folder: Path) -> dict[str, float]:
    """Run one step in a process of its own."""
    env = {**os.environ, **python_env(clone)}
    env["PYTHONPATH"] = os.pathsep.join([str(clone), env["PYTHONPATH"]])
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.data", step]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    wall_s, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stderr)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found = {"wall_s": wall_s, "cpu_s": cpu_s, **json.loads(done.stdout.splitlines()[-1])}
    print(step, found, flush=True)
    return found


def make_batch(path: Path, rows: int, first: int = 0) -> None:
    """Write the made-up batch; its rows are numbered from `first` on."""
    random = np.random.default_rng(first)
    schema = pa.schema([("id", pa.string()), ("text", pa.string()), ("label", pa.string()), ("image", pa.binary())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            writer.write_table(pa.Table.from_pylist([_row(first + start + n, random) for n in range(count)], schema))


def _row(number: int, random: np.random.Generator) -> dict[str, Any]:
    words = np.minimum(random.zipf(1.2, random.integers(4, 21)), 20_000)
    text = " ".join(f"w{word}" for word in words)
    image = None
    if number % 10 == 0:
        buffer = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (48, 48, 3), np.uint8)).save(buffer, "PNG", compress_level=1)
        image = buffer.getvalue() if number % 1000 else buffer.getvalue()[:200]
    return {
        "id": f"r{number}", "text": " " if number % 1000 in (1, 2) else text,
        "label": "unheard of" if number % 1000 in range(3, 8) else LABELS[number % 8], "image": image,
    }  # fmt: skip


def write_params(source: Path, folder: Path) -> None:
    """Write the project's own params with this batch's labels."""
    document = yaml.safe_load(source.read_text())
    document["task"]["labels"] = LABELS
    (folder / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))


def step_ingest() -> None:
    """Read the batch, find facts, check, write the shard."""
    from fuseline.data import adapters, intake

    params = config.load()
    folder = Path("data")
    if not folder.exists():
        folder.mkdir()
        intake.begin(folder, "made up", params.task)
    drafts = adapters.read(Path("batch.parquet"))
    taken = intake.take_in(folder, drafts, "batch.parquet", params.task, params.validate_)
    _tell({"accepted": taken.accepted, "quarantined": taken.quarantined})


def step_validate() -> None:
    """Run the stage."""
    from fuseline.stages import validate

    validate.main(config.load())
    _tell({})


def step_prepare() -> None:
    """Run the stage."""
    from fuseline.stages import prepare

    prepare.main(config.load())
    _tell({})


def step_plain() -> None:
    """Do it the plain way: everything at once in pandas, bad rows named by id, one loop over the pictures."""
    import pandas as pd

    frame = pd.read_parquet("batch.parquet")
    sides = list(_look_at_pictures(frame["image"]))
    frame["error"], frame["side"] = [s[0] for s in sides], pd.array([s[1] for s in sides], dtype="Float64")
    frame["chars"] = frame["text"].str.strip().str.len()
    bad = _plain_suite(frame.drop(columns="image"))
    position = [int.from_bytes(hashlib.sha256(f"salt/{g}".encode()).digest()[:8]) / 2**64 for g in frame["id"]]
    frame["split"] = np.where(np.array(position) < 0.2, "test", "train")
    _tell({"quarantined": len(bad)})


def _look_at_pictures(pictures: Any) -> Iterator[tuple[str | None, float | None]]:
    for data in pictures:
        if data is None:
            yield None, None
            continue
        try:
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                yield None, float(min(image.size))
        except (OSError, SyntaxError, ValueError) as error:
            yield str(error), None


def _plain_suite(frame: Any) -> set[str]:
    import great_expectations as gx
    import great_expectations.expectations as gxe

    between = gxe.ExpectColumnValuesToBeBetween
    suite = gx.ExpectationSuite(name="rows", expectations=[
        gxe.ExpectColumnValuesToNotBeNull(column="id"), gxe.ExpectColumnValuesToBeUnique(column="id"),
        gxe.ExpectColumnValuesToNotBeNull(column="label"),
        gxe.ExpectColumnValuesToBeInSet(column="label", value_set=LABELS),
        between(column="chars", min_value=1, max_value=2000), gxe.ExpectColumnValuesToBeNull(column="error"),
        between(column="side", min_value=16),
    ])  # fmt: skip
    asset = gx.get_context(mode="ephemeral").data_sources.add_pandas("memory").add_dataframe_asset("rows")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    named = {"result_format": "COMPLETE", "unexpected_index_column_names": ["id"]}
    results = batch.validate(suite, result_format=named).results
    return {cell["id"] for one in results for cell in one.result.get("unexpected_index_list") or []}


def _tell(found: dict[str, float]) -> None:
    peak = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps(found | {"peak_memory_bytes": peak * (1 if sys.platform == "darwin" else 1024)}))


STEPS = {"plain": step_plain, "ingest": step_ingest, "validate": step_validate, "prepare": step_prepare}


if __name__ == "__main__":
    STEPS[sys.argv[1]]()
