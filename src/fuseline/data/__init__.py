"""Examples, shards, the data contract and the split."""
