"""What `fuseline benchmark` and `python -m fuseline.benchmark` do; needs neither DVC, Prefect nor params.yaml."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from fuseline.errors import BundleError

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
            Path | None, typer.Option("--input", help="Rows as JSON Lines, as for predict; made up without it.")
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
        from fuseline.runtime.session import can_work

        conditions = Benchmark.model_validate({
            "providers": provider or ["CUDAExecutionProvider", "CPUExecutionProvider"], "threads": threads,
            "batch_sizes": batch_size or [1, 8], "warmup": warmup, "calls": calls, "confidence": confidence,
            "offline": {"rows": offline, "calls": max(1, calls // 10)} if offline else None,
            "server": {"rates": rate, "rows": calls, "largest_batch": largest_batch} if rate else None,
            "roofline": roofline or None, "seed": seed,
            "cuda": {"io_binding": io_binding, "pinned": pinned and io_binding, "graph": cuda_graph, "tf32": tf32},
        })  # fmt: skip
        asked = read_rows(input_, rows) if input_ else make_rows(bundle, rows, pixels, words, seconds, seed)
        on_gpu = conditions.providers[0] != "CPUExecutionProvider" and can_work(conditions.providers[0])
        peers = open_peers(load_torch(against_torch), conditions, on_gpu) if against_torch else {}
        found = measure(bundle, asked, conditions, name_folders(beside or []), peers)
        show(found, Console(highlight=False))
        if output is not None:
            write(found, output)

    return benchmark


def name_folders(given: Sequence[str]) -> dict[str, Path]:
    """Read NAME=FOLDER.

    Raises:
        BundleError: it is none.
    """
    pairs = [one.partition("=") for one in given]
    if wrong := [one for one, (name, _, folder) in zip(given, pairs, strict=True) if not (name and folder)]:
        raise BundleError(f"--beside {wrong[0]!r}: expected NAME=FOLDER, such as int8=build/export/variants/int8")
    return {name: Path(folder) for name, _, folder in pairs}


def read_rows(file: Path, most: int) -> list[Any]:
    """Read rows of JSON Lines, as `predict` does.

    Raises:
        DataError: naming file and line, where one is unsound.
        BundleError: there is none.
    """
    from fuseline.runtime.rows import read_jsonl

    found = [row for _, row in islice(read_jsonl(file), most)]
    if not found:
        raise BundleError(f"{file}: holds no row; leave --input out, and rows are made up")
    return found
