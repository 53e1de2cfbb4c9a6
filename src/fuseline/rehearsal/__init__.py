"""Whether a bundle answers rows by itself: in an environment that holds what it asks for and nothing else."""
