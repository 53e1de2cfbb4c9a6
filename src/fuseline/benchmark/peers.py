"""The model in torch, as it is beside its graph: eager, laid out for convolutions, compiled, and in half precision.

The one part of the room that imports torch, and only when somebody asks for the comparison.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from fuseline.benchmark.running import Apart, Plain, Timer
from fuseline.config import Benchmark as Conditions
from fuseline.runtime.predictor import Feeds, Floats

Context = Callable[[], AbstractContextManager[Any]]
FROZEN: dict[str, Any] = {"freezing": True}
"""Weights are constants to inductor, which folds and lays them out."""


def open_peers(model: Any, conditions: Conditions, on_gpu: bool) -> dict[str, Timer]:
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
    models: dict[str, tuple[Any, Context]] = {}
    for kind, context in kinds.items():
        models[f"torch eager{kind}"] = model, context
        models[f"torch channels_last{kind}"] = laid_out, context
        compiled = torch.compile(copy.deepcopy(laid_out), dynamic=True, options=FROZEN | {"triton.cudagraphs": on_gpu})
        models[f"torch compile{kind}"] = compiled, context
    if on_gpu:
        models["torch eager half"] = _halve(model), nullcontext
        models["torch channels_last half"] = _halve(laid_out), nullcontext
    make = partial(_on_gpu, conditions.cuda.pinned) if on_gpu else _on_cpu
    return {name: make(*one) for name, one in models.items()}


def _halve(model: Any) -> Any:
    """Return the model with weights in half precision; whoever has weights of its own is given half precision.

    What has none, which is how pictures and recordings are prepared, stays single, as in the graph.
    """
    import torch

    halved = copy.deepcopy(model).half()

    def narrow(module: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(
            one.half() if isinstance(one, torch.Tensor) and one.dtype == torch.float32 else one for one in given
        )

    for module in halved.modules():
        if next(module.parameters(), None) is None:
            module.float()
        if next(module.parameters(recurse=False), None) is not None:
            module.register_forward_pre_hook(narrow)
    return halved


def _on_cpu(model: Any, context: Context) -> Timer:
    import torch

    def run(feeds: Feeds) -> Sequence[Floats]:
        with torch.no_grad(), context():  # inductor freezes nothing in inference mode
            given = {name: torch.from_numpy(array) for name, array in feeds.items()}
            return [output.float().numpy() for output in model(**given)]

    return Plain(run)


def _on_gpu(pinned: bool, model: Any, context: Context) -> Timer:
    """Time copies apart, as those of a graph are that is bound."""
    import torch

    def copy_in(feeds: Feeds) -> dict[str, Any]:
        tensors = {name: torch.from_numpy(array) for name, array in feeds.items()}
        given = {name: (one.pin_memory() if pinned else one).to("cuda", non_blocking=True)
                 for name, one in tensors.items()}  # fmt: skip
        torch.cuda.synchronize()
        return given

    def run(given: dict[str, Any]) -> Sequence[Any]:
        torch.compiler.cudagraph_mark_step_begin()
        with torch.no_grad(), context():
            outputs: Sequence[Any] = model(**given)
        torch.cuda.synchronize()
        return outputs

    return Apart(copy_in, run, lambda outputs: [output.float().cpu().numpy() for output in outputs])
