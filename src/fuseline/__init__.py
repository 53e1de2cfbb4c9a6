"""Fuseline keeps a multimodal ensemble in service: retrain, gate, export to ONNX, publish."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else onnxruntime tells its maker; read when it is imported

__version__ = "0.1.0"
