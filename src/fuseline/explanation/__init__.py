"""Why the ensemble answers as it does, and which labels to look at again."""
