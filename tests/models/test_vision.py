"""Hugging Face's vision models and torchvision's weights see pictures as their own processors would show them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
import torchvision
from PIL import Image as Pillow
from torch import Tensor, nn
from transformers import (
    BitImageProcessor,
    CLIPImageProcessor,
    CLIPVisionConfig,
    ConvNextConfig,
    ConvNextImageProcessor,
    Dinov2Config,
    ResNetConfig,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SwinConfig,
    ViTConfig,
    ViTImageProcessor,
)
from transformers.models.auto.modeling_auto import AutoModel

from fuseline import config
from fuseline.errors import ModelError
from fuseline.models.encoders.base import Encoder
from fuseline.models.preprocess import Preprocess
from fuseline.tasks.classification import Classification
from fuseline.training.modalities.hub import digest_model
from fuseline.training.modalities.image import Image
from fuseline.training.pretrained import build_member

BLOCK = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
CUT = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}
MODELS: dict[str, tuple[Any, Any]] = {
    "ViT": (ViTConfig(**BLOCK, image_size=32, patch_size=8), ViTImageProcessor(size={"height": 32, "width": 32})),
    "Swin": (
        SwinConfig(image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4),
        ViTImageProcessor(size={"height": 32, "width": 32}, resample=3),
    ),
    "ConvNeXt": (
        ConvNextConfig(depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 12, 16]),
        ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.8),
    ),
    "DINOv2": (Dinov2Config(**BLOCK, image_size=32, patch_size=8), BitImageProcessor(**CUT)),
    "CLIP": (CLIPVisionConfig(**BLOCK, image_size=32, patch_size=8), CLIPImageProcessor(**CUT)),
    "SigLIP": (
        SiglipVisionConfig(**BLOCK, image_size=32, patch_size=8), SiglipImageProcessor(size={"height": 32, "width": 32})
    ),
    "ResNet": (ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"),
               ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.8)),
}  # fmt: skip


@pytest.fixture(scope="module", params=MODELS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a tiny model with its processor, as save_pretrained leaves them."""
    place = tmp_path_factory.mktemp("vision") / request.param
    shape, processor = MODELS[request.param]
    torch.manual_seed(4)
    AutoModel.from_config(shape).save_pretrained(place)
    processor.save_pretrained(place)
    return place


def to_png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def settings(folder: Path, size: int | None = None) -> config.ImageTransformer:
    return config.ImageTransformer(name=str(folder), revision=digest_model(folder), size=size, several=False)


@pytest.fixture(scope="module")
def encoder(folder: Path, encoders: config.Encoders, expert: Callable[..., config.Expert]) -> Encoder:
    return build(settings(folder), encoders, expert)


def build(image: config.ImageTransformer, encoders: config.Encoders, expert: Callable[..., config.Expert]) -> Encoder:
    member = build_member(
        expert("image"), encoders.model_copy(update={"image": image}), Classification(["a", "b"]), seed=0
    )
    built: Encoder = member.eval().encoders["image"]  # type: ignore[assignment]
    return built


def scene(height: int, width: int) -> np.ndarray[Any, Any]:
    """Paint waves, so that a wrong cut or size shows."""
    rows, columns = np.mgrid[:height, :width]
    channels = [np.sin(rows / 9), np.sin(columns / 7), np.sin((rows + columns) / 11)]
    return (127.5 + 120 * np.stack(channels, axis=2)).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(80, 80), (100, 60), (64, 120), (32, 32), (24, 40)])
def test_pictures_are_shown_as_the_models_own_processor_would(
    folder: Path, encoder: Encoder, height: int, width: int
) -> None:
    processor = MODELS[folder.name][1]
    expected = processor(Pillow.fromarray(scene(height, width)), return_tensors="pt")["pixel_values"]
    found = encoder.preprocess(torch.from_numpy(scene(height, width))[None])  # type: ignore[operator]
    assert found.shape == expected.shape
    level = 1 / 255 / min(processor.image_std)
    assert (found - expected).abs().mean() < level
    assert (found - expected).abs().max() < 6 * level  # of bicubic, the processor rounds and clips once more


def test_the_features_are_the_models_own_summary(folder: Path, encoder: Encoder) -> None:
    model = type(encoder.backbone).from_pretrained(folder).eval()  # type: ignore[attr-defined]
    pixels = torch.from_numpy(scene(50, 70))[None]
    with torch.no_grad():
        encoded = encoder(pixels=pixels)
        found = model(pixel_values=encoder.preprocess(pixels))  # type: ignore[operator]
    summary = found.last_hidden_state[:, 0] if folder.name == "ViT" else found.pooler_output.flatten(1)
    torch.testing.assert_close(encoded.vector_BD, summary)
    assert encoded.vector_BD.shape == (1, encoder.size)
    assert encoded.states_BTD.shape == (1, encoded.mask_BT.shape[1], encoder.size)
    assert encoded.states_BTD.shape[1] > 1 or folder.name == "ConvNeXt"


def test_a_picture_that_was_kept_is_seen_as_the_picture_itself(folder: Path, encoder: Encoder) -> None:
    image = Image(settings(folder))
    kept = image.restore(image.keep(to_png(scene(90, 61))))
    with torch.no_grad():
        first, second = (encoder(pixels=torch.from_numpy(one)[None]).vector_BD for one in (kept, scene(90, 61)))
    assert (first - second).norm() < 0.03 * second.norm()


class Vector(nn.Module):
    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: Tensor) -> Tensor:
        vector: Tensor = self.encoder(pixels=pixels).vector_BD
        return vector


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", [None, 48])
def test_the_graph_gives_the_same_features_for_pictures_of_any_size(
    size: int | None, folder: Path, encoders: config.Encoders, expert: Callable[..., config.Expert]
) -> None:
    encoder = build(settings(folder, size), encoders, expert)
    shapes = {"pixels": {0: "batch", 1: "height", 2: "width"}}
    program = torch.onnx.export(
        Vector(encoder), (), kwargs={"pixels": torch.zeros(2, 48, 40, 3, dtype=torch.uint8)}, dynamo=True,
        dynamic_shapes=shapes, verbose=False, opset_version=20,
    )  # fmt: skip
    graph = io.BytesIO()
    assert program is not None
    program.save(graph)
    session = ort.InferenceSession(graph.getvalue(), providers=["CPUExecutionProvider"])
    for batch, height, width in ((1, 80, 80), (3, 100, 60), (2, 31, 120), (1, 1, 1)):
        pixels = torch.from_numpy(scene(height, width))[None].repeat(batch, 1, 1, 1)
        with torch.no_grad():
            expected = encoder(pixels=pixels).vector_BD
        (found,) = session.run(None, {"pixels": pixels.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-4, rtol=1e-3)


def test_a_size_of_ones_own_squeezes_the_whole_picture_into_it(folder: Path) -> None:
    view = Image(settings(folder, 24)).view
    assert (view.side, view.shorter, view.kept) == (24, None, 24)
    assert view.mean == list(MODELS[folder.name][1].image_mean)


def test_a_processor_that_cuts_out_more_than_there_is_is_refused(tmp_path: Path) -> None:
    BitImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 40, "width": 40}).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="cuts 40 x 40 out of pictures of 32"):
        Image(settings(tmp_path))


def test_a_model_on_texts_is_refused(text_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((text_folder / "config.json").read_bytes())
    ViTImageProcessor().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="is a bert; expected a vision model"):
        Image(settings(tmp_path)).architecture()


def test_a_model_without_a_processor_is_refused(tmp_path: Path) -> None:
    ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"no preprocessor_config\.json could be loaded"):
        Image(settings(tmp_path))


def test_a_way_of_resampling_that_the_graph_has_not_is_refused(tmp_path: Path) -> None:
    ViTImageProcessor(resample=0).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="expected bilinear"):
        Image(settings(tmp_path))


@pytest.mark.parametrize("name", ["resnet50", "convnext_tiny", "efficientnet_b0", "swin_t", "vit_b_16"])
@pytest.mark.parametrize(("height", "width"), [(300, 400), (500, 280)])
def test_torchvisions_weights_see_pictures_as_their_own_transforms_show_them(
    name: str, height: int, width: int
) -> None:
    weights = torchvision.models.get_model_weights(name).DEFAULT
    image = Image(config.ImageEncoder(name=name, weights="DEFAULT", size=None, blocks=None, several=False))
    expected = weights.transforms()(Pillow.fromarray(scene(height, width)))[None]
    view = image.view
    show = Preprocess(view.side, view.mean, view.std, view.shorter, view.kernel)
    found = show(torch.from_numpy(scene(height, width))[None])
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 3 / 255 / 0.22
    kept = torch.from_numpy(image.restore(image.keep(to_png(scene(height, width)))))[None]
    assert kept.shape == (1, view.kept, view.kept, 3)
    assert (show(kept) - expected).abs().mean() < 1.5 / 255 / 0.22
