"""The layers of networks of many kinds are found in order, and every weight has a depth."""

from __future__ import annotations

import pytest
import torchvision
from transformers import AutoConfig, AutoModel

from fuseline.models.encoders.image import build_resnet, build_torchvision, drop_classifier
from fuseline.training.layers import depths, find_layers

TEXT = {
    "bert": ("encoder.layer", {"num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}),
    "distilbert": ("transformer.layer", {"n_layers": 3, "n_heads": 2, "hidden_dim": 16, "dim": 8}),
    "gpt2": ("h", {"n_layer": 3, "n_head": 2, "n_embd": 8}),
    "llama": ("layers", {"num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}),
}
IMAGE = {
    "resnet18": ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4"],
    "vit_b_16": [f"encoder.layers.encoder_layer_{number}" for number in range(12)],
    "convnext_tiny": [f"features.{number}" for number in range(8)],
    "efficientnet_b0": [f"features.{number}" for number in range(9)],
    "swin_t": [f"features.{number}" for number in range(8)],
    "regnet_y_400mf": [f"trunk_output.block{number}" for number in range(1, 5)],
}


@pytest.mark.parametrize("kind", TEXT)
def test_blocks_of_a_transformer_are_its_layers_between_embeddings_and_what_follows(kind: str) -> None:
    place, shape = TEXT[kind]
    size = {"vocab_size": 9, **({"hidden_size": 8} if "num_hidden_layers" in shape else {})}
    network = AutoModel.from_config(AutoConfig.for_model(kind, **size, **shape))
    assert find_layers(network) == [f"{place}.{number}" for number in range(3)]
    found, layers = depths(network)
    assert layers == 3
    assert found.keys() == {name for name, _ in network.named_parameters()}
    embedding = next(name for name in found if "embed" in name or name == "wte.weight")
    assert found[embedding] == 0
    assert {depth for name, depth in found.items() if name.startswith(f"{place}.2.")} == {3}
    assert max(found.values()) == (3 if kind == "distilbert" else 4)  # a pooler, or a last norm


@pytest.mark.parametrize("name", IMAGE)
def test_stages_of_a_picture_network_are_its_layers(name: str) -> None:
    network = build_torchvision(name, 64)
    drop_classifier(network, 64)
    assert find_layers(network) == IMAGE[name]


def test_every_picture_network_has_layers_and_a_depth_for_each_weight() -> None:
    names = [
        name
        for name in torchvision.models.list_models(module=torchvision.models)
        if name.endswith(("_0", "_s", "_small", "x0_5", "mf", "16", "121", "18", "_t", "tiny", "alexnet", "googlenet"))
    ]
    for name in names:
        network = build_torchvision(name, 224)
        drop_classifier(network, 224)
        found, layers = depths(network)
        assert layers >= 3, name
        assert len(found) == len(list(network.parameters()))
        in_order = [depth for depth in found.values() if 0 < depth <= layers]
        assert in_order == sorted(in_order), name
    assert len(names) > 12


def test_a_resnet_of_four_blocks_has_stem_and_four_stages() -> None:
    network = build_resnet("resnet18", [1, 1, 1, 1])
    drop_classifier(network, 32)
    assert find_layers(network) == ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4"]
