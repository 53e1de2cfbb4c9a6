"""The layers of any encoder, in order: blocks of a transformer, stages of a convolutional network."""

from __future__ import annotations

from torch import nn

DOMINANT = 0.7
"""Share of the weighted modules from which a child counts as the network itself, and its parent as a wrapping."""


def depths(network: nn.Module) -> tuple[dict[str, int], int]:
    """Give each parameter the number of its layer: 0 before the first one (embeddings, a stem), L + 1 behind the last.

    Returns:
        depth by parameter name, and L.
    """
    layers = [f"{name}." for name in find_layers(network)]
    found, last = {}, 0
    for name, _ in network.named_parameters():
        at = next((number for number, prefix in enumerate(layers, 1) if name.startswith(prefix)), None)
        behind = last > 0 and at is None
        found[name] = at or (len(layers) + 1 if behind else 0)
        last = max(last, at or 0)
    return found, len(layers)


def find_layers(network: nn.Module) -> list[str]:
    """Return the names of the layers, first to last.

    A transformer keeps them in a ModuleList, the largest of its outermost ones. Elsewhere they are the weighted
    children of the first module, from the root on, in which no child alone is nearly all.
    """
    outermost: dict[str, nn.Module] = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.ModuleList) and not any(name.startswith(f"{other}.") for other in outermost):
            outermost[name] = module
    if outermost:
        name = max(outermost, key=lambda each: _size(outermost[each]))
        return [f"{name}.{child}" for child, _ in outermost[name].named_children()]
    return _descend(network, "")


def _descend(module: nn.Module, prefix: str) -> list[str]:
    children = {f"{prefix}{name}": child for name, child in module.named_children() if _size(child)}
    for name, child in children.items():
        if _size(child) >= DOMINANT * _size(module) and any(_size(inner) for inner in child.children()):
            return _descend(child, f"{name}.")
    return list(children)


def _size(module: nn.Module) -> int:
    """Count the modules with weights of their own: their number, unlike the weights', is even from layer to layer."""
    return sum(any(True for _ in each.parameters(recurse=False)) for each in module.modules())
