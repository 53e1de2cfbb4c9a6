"""Train AutoGluon-Multimodal on what `benchmarks.training` wrote for it; runs in the peer's own environment.

`python peer.py FOLDER EPOCHS`; same encoders, rows, batch size and picture side as ours, no random changes.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import timm  # type: ignore[import-not-found]
import torch
from autogluon.multimodal import MultiModalPredictor  # type: ignore[import-not-found]


def write_image_model(folder: Path, name: str) -> None:
    """Save a network with weights drawn anew, as its own loader wants them: there may be no hub to load others from."""
    folder.mkdir(exist_ok=True)
    model = timm.create_model(name, pretrained=False, num_classes=0)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    config = {"architecture": name, "num_features": model.num_features, "pretrained_cfg": model.default_cfg}
    (folder / "config.json").write_text(json.dumps(config))


def train(folder: Path, epochs: int) -> float:
    """Return the seconds of `fit`."""
    settings = json.loads((folder / "settings.json").read_text())
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    write_image_model(folder / "image-model", settings["image"])
    train_rows, val_rows = (pd.read_parquet(folder / f"{split}.parquet") for split in ("train", "val"))
    transforms = ["resize_shorter_side", "center_crop"]
    hyperparameters = {
        "model.names": ["hf_text", "timm_image", "fusion_mlp"],
        "model.hf_text.checkpoint_name": settings["text"],
        "model.hf_text.max_text_len": settings["max_tokens"],
        "model.timm_image.checkpoint_name": str(folder / "image-model"),
        "model.timm_image.image_size": settings["side"],
        "model.timm_image.train_transforms": transforms,
        "model.timm_image.val_transforms": transforms,
        "optim.max_epochs": epochs,
        "optim.patience": epochs + 1,
        "optim.val_check_interval": 1.0,
        "optim.top_k_average_method": "best",
        "env.num_gpus": 0,
        "env.precision": 32,
        "env.batch_size": settings["batch_size"],
        "env.per_gpu_batch_size": settings["batch_size"],
        "env.num_workers": 0,
    }
    with tempfile.TemporaryDirectory() as place:
        predictor = MultiModalPredictor(label="label", problem_type="multiclass", path=f"{place}/out", verbosity=1)
        start = time.monotonic()
        predictor.fit(
            train_rows,
            tuning_data=val_rows,
            hyperparameters=hyperparameters,
            column_types={"image": "image_path", "text": "text"},
        )
        return time.monotonic() - start


if __name__ == "__main__":
    print(json.dumps({"seconds": train(Path(sys.argv[1]), int(sys.argv[2]))}))
