"""Members from checkpoints or pretrained weights, their training, and the fit of the ensemble."""
