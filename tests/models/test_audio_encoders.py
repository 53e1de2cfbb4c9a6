"""Encoders of sound: a recording alone is what it is in a batch, whatever stands behind its end."""

from __future__ import annotations

import io
from typing import Any

import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn
from transformers import ASTConfig, HubertConfig, Wav2Vec2Config

from fuseline.models.encoders import build_encoder
from fuseline.models.encoders.audio import MaskedNorm, receptive_field
from fuseline.models.encoders.base import Encoder

CNN = {"kind": "log-mel-cnn", "rate": 8000, "mels": 16, "window_ms": 25.0, "hop_ms": 10.0, "widths": [6, 8]}
SMALL = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "conv_dim": [8, 8, 8], "conv_stride": [5, 2, 2], "conv_kernel": [10, 3, 3], "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "apply_spec_augment": False,
}  # fmt: skip
LOG_MEL = {"rate": 8000, "mels": 16, "window": 200, "hop": 80, "lowest": 20.0, "preemphasis": 0.97, "centred": True,
           "floor": 1e-7}  # fmt: skip


def transformer(config: Any, spectrogram: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "kind": "hugging-face-audio", "architecture": {**config.to_diff_dict(), "model_type": config.model_type},
        "max_samples": 4000, "standardised": True, "spectrogram": spectrogram,
    }  # fmt: skip


AST = ASTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, patch_size=8,
                frequency_stride=8, time_stride=8, max_length=48, num_mel_bins=16)  # fmt: skip
ENCODERS: dict[str, dict[str, Any]] = {
    "log-mel CNN": CNN,
    "wav2vec 2.0 with a norm over the whole": transformer(Wav2Vec2Config(**SMALL, feat_extract_norm="group")),
    "wav2vec 2.0 with norms per frame": transformer(
        Wav2Vec2Config(**SMALL, feat_extract_norm="layer", do_stable_layer_norm=True)
    ),
    "HuBERT": transformer(HubertConfig(**SMALL)),
    "Audio Spectrogram Transformer": transformer(
        AST, {"frames": 48, "mean": -4.0, "deviation": 4.5, "log_mel": LOG_MEL}
    ),
}


@pytest.fixture(scope="module", params=ENCODERS)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    torch.manual_seed(0)
    built = build_encoder(**ENCODERS[request.param])
    with torch.no_grad():
        for name, buffer in built.named_buffers():
            if "running_var" in name:
                buffer.uniform_(0.1, 0.4)
            elif "running_mean" in name:
                buffer.uniform_(-0.2, 0.2)
    return built.eval()


LENGTHS = torch.tensor([4000, 1, 777, 2400, 30])


def batch(filler: float = 0.0) -> dict[str, Tensor]:
    waveform = torch.randn(len(LENGTHS), 4000, generator=torch.Generator().manual_seed(1)) * 0.1
    behind = torch.arange(4000) >= LENGTHS[:, None]
    return {"waveform": waveform.masked_fill(behind, filler), "waveform_lengths": LENGTHS}


def test_a_recording_alone_is_what_it_is_in_a_batch(encoder: Encoder) -> None:
    with torch.no_grad():
        together = encoder(**batch())
        for row, length in enumerate(LENGTHS.tolist()):
            given = {
                "waveform": batch()["waveform"][row : row + 1, :length],
                "waveform_lengths": LENGTHS[row : row + 1],
            }
            alone = encoder(**given)
            torch.testing.assert_close(alone.vector_BD[0], together.vector_BD[row], atol=2e-5, rtol=1e-4)
            count = int(alone.mask_BT.sum())
            assert count == int(together.mask_BT[row].sum()) >= 1
            torch.testing.assert_close(
                alone.states_BTD[0, :count], together.states_BTD[row, :count], atol=2e-5, rtol=1e-4
            )


def test_what_stands_behind_the_end_does_not_count(encoder: Encoder) -> None:
    with torch.no_grad():
        torch.testing.assert_close(encoder(**batch(3.0)).vector_BD, encoder(**batch()).vector_BD, atol=1e-6, rtol=0)


def test_recordings_are_told_apart_and_sizes_are_as_said(encoder: Encoder) -> None:
    with torch.no_grad():
        encoded = encoder(**batch())
    assert encoded.vector_BD.shape == (5, encoder.size)
    assert encoded.states_BTD.shape == (5, encoded.mask_BT.shape[1], encoder.size)
    assert torch.isfinite(encoded.vector_BD).all()
    assert (encoded.vector_BD[0] - encoded.vector_BD[2]).abs().max() > 1e-4


def test_silence_and_nothing_at_all_give_finite_features(encoder: Encoder) -> None:
    with torch.no_grad():
        for lengths in ([50, 50], [0, 0]):
            encoded = encoder(waveform=torch.zeros(2, 50), waveform_lengths=torch.tensor(lengths))
            assert torch.isfinite(encoded.vector_BD).all()


class Vector(nn.Module):
    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, waveform: Tensor, waveform_lengths: Tensor) -> Tensor:
        vector: Tensor = self.encoder(waveform=waveform, waveform_lengths=waveform_lengths).vector_BD
        return vector


@pytest.mark.filterwarnings("ignore")
def test_the_graph_gives_the_same_features_at_any_batch_and_length(encoder: Encoder) -> None:
    traced = {"waveform": torch.zeros(2, 3000), "waveform_lengths": torch.tensor([3000, 3000])}
    shapes = {"waveform": {0: "batch", 1: "samples"}, "waveform_lengths": {0: "batch"}}
    program = torch.onnx.export(Vector(encoder), (), kwargs=traced, dynamo=True, dynamic_shapes=shapes, verbose=False)
    graph = io.BytesIO()
    assert program is not None
    program.save(graph)
    session = ort.InferenceSession(graph.getvalue(), providers=["CPUExecutionProvider"])
    for size, samples in ((1, 1), (1, 4000), (5, 2500), (3, 320)):
        feeds = {
            "waveform": batch()["waveform"][:size, :samples],
            "waveform_lengths": LENGTHS[:size].clamp(max=samples),
        }
        with torch.no_grad():
            expected = encoder(**feeds).vector_BD
        (found,) = session.run(None, {name: tensor.numpy() for name, tensor in feeds.items()})
        torch.testing.assert_close(torch.from_numpy(found), expected, atol=5e-5, rtol=1e-4)


def test_padding_does_not_bend_the_batch_norms() -> None:
    states = []
    for samples in (1000, 4000):
        torch.manual_seed(0)
        encoder = build_encoder(**CNN).train()
        waveform = torch.zeros(3, samples)
        waveform[:, :900] = batch()["waveform"][[0, 0, 3], :900]
        encoder(waveform=waveform, waveform_lengths=torch.tensor([900, 400, 900]))
        states.append(encoder.state_dict())
    assert all(torch.allclose(states[0][name], states[1][name], atol=1e-6) for name in states[0])


def test_a_masked_norm_is_a_norm_where_all_is_there() -> None:
    torch.manual_seed(0)
    maps, plain, masked = torch.randn(2, 4, 3, 5), nn.BatchNorm2d(4), MaskedNorm(4)
    torch.testing.assert_close(masked(maps, torch.ones(2, 5, dtype=torch.bool)), plain(maps))
    torch.testing.assert_close(masked.running_var, plain.running_var)


def test_every_weight_of_the_cnn_has_a_gradient() -> None:
    encoder = build_encoder(**CNN).train()
    encoder(**batch()).vector_BD.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in encoder.parameters())


def test_the_receptive_field_is_what_one_frame_needs() -> None:
    assert receptive_field([10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2]) == 400
    assert receptive_field([], []) == 1
