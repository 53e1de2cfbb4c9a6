"""Fuseline keeps a multimodal ensemble in service: retrain, gate, export to ONNX, publish."""

__version__ = "0.1.0"
