"""What `fuseline benchmark` and `python -m fuseline.benchmark` do; needs neither DVC, Prefect nor params.yaml."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from fuseline.errors import BundleError

TAKEN = {"bundle", "exported", "ensemble", "student"}
"""What the bundle itself is called in the record, its metrics and plots."""
LoadTorch = Callable[[Path], Any]
"""Loads the model that a bundle was exported from; whoever wires the rooms knows how."""


def make_command(load_torch: LoadTorch) -> Callable[..., None]:
    """Make the command."""

    def benchmark(
        bundle: Annotated[Path, typer.Argument(help="A bundle's folder, such as champion/.")],
        beside: Annotated[
            list[str] | None, typer.Option(help="NAME=FOLDER: another bundle to take turns with; repeat for more.")
        ] = None,
        against_torch: Annotated[
            Path | None, typer.Option(help="The build/ that the bundle is of: its model in torch takes turns too.")
        ] = None,
        input_: Annotated[
            Path | None, typer.Option("--input", help="A file or folder of rows, as for predict; made up without it.")
        ] = None,
        rows: Annotated[int, typer.Option(min=1, help="Rows that the calls go round in.")] = 256,
        pixels: Annotated[int, typer.Option(min=1, help="Of the sides of pictures that are made up.")] = 224,
        words: Annotated[int, typer.Option(min=1, help="Of texts that are made up.")] = 16,
        seconds: Annotated[float, typer.Option(min=0.01, help="Of recordings that are made up.")] = 1.0,
        provider: Annotated[list[str] | None, typer.Option(help="Execution providers in order of preference.")] = None,
        threads: Annotated[int, typer.Option(min=1, help="Threads inside one operator.")] = 2,
        batch_size: Annotated[list[int] | None, typer.Option(min=1, help="Rows per call; repeat for more.")] = None,
        warmup: Annotated[int, typer.Option(min=1, help="Calls that are not counted.")] = 20,
        calls: Annotated[int, typer.Option(min=1, help="Calls that are; the 99th percentile takes 299.")] = 300,
        offline: Annotated[int, typer.Option(min=0, help="Rows at once; 0 leaves the scenario out.")] = 64,
        rate: Annotated[
            list[float] | None, typer.Option(help="Rows that arrive in a second; without it none do.")
        ] = None,
        largest_batch: Annotated[int, typer.Option(min=1, help="Rows that wait and are answered together.")] = 8,
        roofline: Annotated[int, typer.Option(min=0, help="Calls beside the machine's ceilings; 0: none.")] = 20,
        cuda_graph: Annotated[bool, typer.Option(help="Capture a CUDA graph for each set of shapes.")] = False,
        io_binding: Annotated[bool, typer.Option(help="On a GPU, bind inputs and outputs to it.")] = True,
        pinned: Annotated[bool, typer.Option(help="On a GPU, copy from memory whose pages are locked.")] = True,
        tf32: Annotated[bool, typer.Option(help="On a GPU, allow TF32; in torch too.")] = False,
        confidence: Annotated[float, typer.Option(min=0.5, max=0.9999, help="Of all intervals.")] = 0.95,
        seed: Annotated[int, typer.Option(min=0, help="Deals turns, arrivals and rows that are made up.")] = 0,
        output: Annotated[
            Path | None, typer.Option(help="A folder for benchmark.json and the numbers of its plots.")
        ] = None,
    ) -> None:
        """Time a bundle, and others beside it, call after call, all at once and as rows arrive."""
        from rich.console import Console

        from fuseline.benchmark.made import make_rows
        from fuseline.benchmark.measure import measure
        from fuseline.benchmark.peers import open_peers
        from fuseline.benchmark.show import show
        from fuseline.benchmark.tables import write
        from fuseline.config import Benchmark
        from fuseline.runtime.rows import read_rows

        conditions = Benchmark.model_validate({
            "providers": provider or ["CUDAExecutionProvider", "CPUExecutionProvider"], "threads": threads,
            "rows": rows, "batch_sizes": batch_size or [1, 8], "warmup": warmup, "calls": calls,
            "offline": {"rows": offline, "calls": max(1, calls // 10)} if offline else None,
            "server": {"rates": rate, "rows": calls, "largest_batch": largest_batch} if rate else None,
            "roofline": roofline or None, "confidence": confidence, "seed": seed,
            "cuda": {"io_binding": io_binding, "pinned": pinned and io_binding, "graph": cuda_graph, "tf32": tf32},
        })  # fmt: skip
        asked = (
            (row for _, row in read_rows(input_)) if input_ else make_rows(bundle, rows, pixels, words, seconds, seed)
        )
        peers = partial(open_peers, load_torch(against_torch), conditions) if against_torch else None
        found = measure(bundle, asked, conditions, name_folders(beside or []), peers)
        show(found, Console(highlight=False))
        if output is not None:
            write(found, output)

    return benchmark


def name_folders(given: Sequence[str]) -> dict[str, Path]:
    """Read NAME=FOLDER.

    Raises:
        BundleError: it is none, or the name has another meaning or is given twice.
    """
    found: dict[str, Path] = {}
    for one in given:
        name, _, folder = one.partition("=")
        if not (re.fullmatch(r"[A-Za-z0-9_-]+", name) and folder):
            raise BundleError(
                f"--beside {one!r}: expected NAME=FOLDER, such as int8=build/export/variants/int8; "
                "a name has letters, digits, - and _"
            )
        if name in TAKEN or name in found:
            raise BundleError(f"--beside {one!r}: {name} is taken; expected a name that no other side has")
        found[name] = Path(folder)
    return found
