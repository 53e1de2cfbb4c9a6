"""The stages of dvc.yaml, one module each: files and params in, files out.

A stage knows nothing of Prefect, git, champions, clocks or networks.
"""
