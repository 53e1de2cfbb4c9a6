"""The model in torch, as it is beside its graph: eager, laid out for convolutions, compiled, and in half precision.

The one part of the room that imports torch, and only when somebody asks for the comparison.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from fuseline.config import Benchmark as Conditions
from fuseline.runtime.predictor import Feeds, Floats, Run

Context = Callable[[], AbstractContextManager[Any]]
FROZEN: dict[str, Any] = {"freezing": True}
"""Weights are constants to inductor, which folds and lays them out."""


def open_peers(model: Any, conditions: Conditions, on_gpu: bool) -> dict[str, Run]:
    """Return what answers a bundle's inputs with its model in torch, by name.

    Args:
        model: in evaluation mode; takes the inputs by their names.
    """
    import torch

    torch.set_num_threads(conditions.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = conditions.cuda.tf32
    device, half = ("cuda", torch.float16) if on_gpu else ("cpu", torch.bfloat16)
    model = model.to(device)
    laid_out = copy.deepcopy(model).to(memory_format=torch.channels_last)
    kinds: dict[str, Context] = {
        "": nullcontext,
        f" {str(half).removeprefix('torch.')}": lambda: torch.autocast(device, half),
    }
    runs: dict[str, Run] = {}
    for kind, context in kinds.items():
        runs[f"torch eager{kind}"] = _run(model, device, context)
        runs[f"torch channels_last{kind}"] = _run(laid_out, device, context)
        compiled = torch.compile(copy.deepcopy(laid_out), dynamic=True, options=FROZEN)
        runs[f"torch compile{kind}"] = _run(compiled, device, context)
    return runs


def _run(model: Any, device: str, context: Context) -> Run:
    import torch

    def run(feeds: Feeds) -> Sequence[Floats]:
        with torch.no_grad(), context():  # inductor freezes nothing in inference mode
            given = {name: torch.from_numpy(array).to(device) for name, array in feeds.items()}
            return [output.float().cpu().numpy() for output in model(**given)]

    return run
