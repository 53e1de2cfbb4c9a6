"""Prefect flows: the only place that knows of runs, times and the champion, and the only one that imports prefect."""
