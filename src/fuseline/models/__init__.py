"""Tensors in, tensors out: preprocessing, encoders, fusion, the member model and the ensemble."""
