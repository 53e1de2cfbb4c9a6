"""Search for better numbers of one member's recipe: trials by Optuna, pruned, within a budget, resumable."""
