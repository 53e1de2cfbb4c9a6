"""The ensemble as one ONNX graph in a bundle that anyone can deploy."""
