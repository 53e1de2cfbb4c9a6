"""The bundle in service: onnxruntime, tokenizers, numpy and Pillow; no torch."""
