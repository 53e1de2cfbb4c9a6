"""How the server works: what it refuses, how long it waits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Bounds of the server; together they bound its memory."""

    providers: tuple[str, ...] = ("CUDAExecutionProvider", "CPUExecutionProvider")
    """As Predictor takes them."""
    threads: int = 0
    """As Predictor takes them."""
    max_batch: int = 32
    """Rows of one call of the graph; 1 answers each request by itself."""
    max_wait_ms: float = 2.0
    """How long a batch waits for more rows, once the graph is free; who is alone does not wait."""
    max_requests: int = 64
    """Requests inside at once; one more is told to come again, before its body is read."""
    max_body_bytes: int = 16_000_000
    max_inside_bytes: int = 200_000_000
    """Bodies of all requests inside together, as announced. A JSON body takes 2.9 times its size while it is read (the
    body, a file in base64, its bytes), a form 2.1 times."""
    max_values: int = 100_000
    """Numbers, texts, lists and objects in one request's JSON, a box being 7: parsed, each takes about 100 bytes and
    more, however few it has in the body."""
    max_rows: int = 64
    """Rows of one request."""
    max_pictures: int = 32
    """Pictures of one row."""
    max_chars: int = 100_000
    """Characters of one text: whatever is cut off later is tokenized first."""
    max_pixels: int = 16_000_000
    """Pixels of one row's pictures together, known before they are decoded."""
    deadline_s: float = 10.0
    """From a request's first byte to its answer."""
    drain_s: int = 30
    """How long requests that are inside may take when the server is told to stop."""
    reload_s: float = 2.0
    """How often it is looked whether the bundle's place holds another one; 0 looks only on SIGHUP."""
