"""Fuseline keeps a multimodal ensemble in service: retrain, gate, export to ONNX, publish."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime reads it when it is imported, and tells its maker else

__version__ = "0.1.0"
