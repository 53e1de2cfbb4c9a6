"""Answer a row with a bundle and ONNX Runtime alone: no Fuseline, no torch.

    pip install onnxruntime numpy tokenizers pillow
    python examples/clients/onnx_client.py champion/ --text "slice of watermelon" --image melon.png

For bundles of classification on texts and pictures. A bundle's own README has the lines for others.
"""

import argparse
import hashlib
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported

import numpy as np
import onnxruntime as ort
from PIL import Image, ImageOps
from tokenizers import Tokenizer


def verify(bundle: Path) -> Any:
    """Return bundle.json once every file has the digest that it lists: onnxruntime loads altered weights too."""
    card = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    for name, file in card["files"].items():
        if hashlib.sha256((bundle / name).read_bytes()).hexdigest() != file["sha256"]:
            raise SystemExit(f"error: {bundle / name} is altered")
    return card


def read_text(text: str | None, tokenizer: Tokenizer) -> dict[str, Any]:
    """Make the inputs of a text; where there is none, has_text says so."""
    encoding = tokenizer.encode(text or "")
    ids, mask = np.array([encoding.ids]), np.array([encoding.attention_mask])
    return {"input_ids": ids, "attention_mask": mask, "has_text": np.array([text is not None])}


def read_image(path: Path | None) -> dict[str, Any]:
    """Make the inputs of a picture of any size: upright, transparency laid on white."""
    if path is None:
        return {"pixels": np.zeros((1, 1, 1, 3), np.uint8), "has_image": np.array([False])}
    rgba = ImageOps.exif_transpose(Image.open(path)).convert("RGBA")
    picture = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return {"pixels": np.asarray(picture)[None], "has_image": np.array([True])}


def answer(bundle: Path, text: str | None, image: Path | None) -> dict[str, float]:
    """Return the probability of each label."""
    card = verify(bundle)
    inputs: dict[str, Any] = {}
    if "text" in card["modalities"]:
        inputs |= read_text(text, Tokenizer.from_file(str(bundle / "tokenizer.json")))
    if "image" in card["modalities"]:
        inputs |= read_image(image)
    session = ort.InferenceSession(str(bundle / "model.onnx"), providers=["CPUExecutionProvider"])
    [probabilities] = session.run(["probabilities"], inputs)[0]
    return dict(zip(card["labels"], map(float, probabilities), strict=True))


def main() -> None:
    """Print what the bundle says, as JSON."""
    parser = argparse.ArgumentParser(description="Answer a row with ONNX Runtime alone.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--text")
    parser.add_argument("--image", type=Path)
    given = parser.parse_args()
    if given.text is None and given.image is None:
        parser.error("expected --text, --image or both")
    found = answer(given.bundle, given.text, given.image)
    print(json.dumps({"label": max(found, key=lambda label: found[label]), "probabilities": found}))


if __name__ == "__main__":
    main()
