"""`fuseline serve` and `fuseline triton`: a bundle behind HTTP, by our server or NVIDIA's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fuseline.cli import app, told_plainly

Bundle = Annotated[Path, typer.Argument(help="A bundle's folder, such as champion/.")]


@app.command()
@told_plainly
def serve(
    bundle: Bundle,
    host: Annotated[str, typer.Option(help="0.0.0.0 lets others in: put TLS and accounts in front.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    provider: Annotated[list[str] | None, typer.Option(help="Execution providers in order of preference.")] = None,
    threads: Annotated[int, typer.Option(min=0, help="Threads inside one operator; 0 leaves it to onnxruntime.")] = 0,
    max_batch: Annotated[int, typer.Option(min=1, help="Rows of one call of the graph.")] = 32,
    max_wait_ms: Annotated[float, typer.Option(min=0, help="How long a batch waits for more rows.")] = 2.0,
    max_requests: Annotated[int, typer.Option(min=1, help="Requests inside at once; the next gets 503.")] = 64,
    max_body_mb: Annotated[float, typer.Option(min=0.001, help="Of one request.")] = 16.0,
    max_inside_mb: Annotated[float, typer.Option(min=0.001, help="Of all requests inside; more gets 503.")] = 200.0,
    max_values: Annotated[int, typer.Option(min=1, help="Numbers, texts and lists of one request's JSON.")] = 100_000,
    max_rows: Annotated[int, typer.Option(min=1, help="Rows of one request.")] = 64,
    max_pictures: Annotated[int, typer.Option(min=1, help="Of one row.")] = 32,
    max_chars: Annotated[int, typer.Option(min=1, help="Of one text.")] = 100_000,
    max_pixels: Annotated[int, typer.Option(min=1, help="Of one row's pictures together.")] = 16_000_000,
    deadline_s: Annotated[float, typer.Option(min=0.01, help="From a request's first byte to its answer.")] = 10.0,
    drain_s: Annotated[int, typer.Option(min=0, help="For requests inside when told to stop.")] = 30,
    reload_s: Annotated[float, typer.Option(min=0, help="How often to look for another bundle; 0: on SIGHUP.")] = 2.0,
) -> None:
    """Answer over HTTP with a bundle; a new one at its place is taken over without a pause. /docs tells the rest."""
    from fuseline.serving.server import serve as run
    from fuseline.serving.settings import Settings

    own = {"providers": tuple(provider)} if provider else {}
    run(bundle, host, port, Settings(
        threads=threads, max_batch=max_batch, max_wait_ms=max_wait_ms, max_requests=max_requests,
        max_body_bytes=int(max_body_mb * 1e6), max_inside_bytes=int(max_inside_mb * 1e6), max_values=max_values,
        max_rows=max_rows, max_pictures=max_pictures, max_chars=max_chars, max_pixels=max_pixels,
        deadline_s=deadline_s, drain_s=drain_s, reload_s=reload_s, **own,
    ))  # fmt: skip


@app.command()
@told_plainly
def triton(
    bundle: Bundle,
    repository: Annotated[Path, typer.Argument(help="Triton's model repository; made if it is not there.")],
    name: Annotated[str | None, typer.Option(help="The model's; as in bundle.json without it.")] = None,
    version: Annotated[int, typer.Option(min=1, help="The folder that the graph goes to.")] = 1,
    max_batch: Annotated[int, typer.Option(min=1, help="Rows that Triton puts together.")] = 16,
    gpu: Annotated[bool, typer.Option(help="Run on the GPU in place of the CPU.")] = False,
    instances: Annotated[int, typer.Option(min=1, help="Copies of the model that run at once.")] = 1,
) -> None:
    """Write a bundle into a model repository of NVIDIA's Triton."""
    from fuseline.serving.triton import Instances, write_repository

    home = write_repository(bundle, repository, name, version, max_batch, Instances(instances, gpu))
    typer.echo(f"{home}: version {version}; start with tritonserver --model-repository={repository.resolve()}")
