"""git, DVC and GTO: snapshots, workspaces, runs, versions, the champion. One adapter each."""
