"""Prefect flows: the only place that knows of runs, times and the champion, and the only one that imports prefect."""

import os

# Prefect reads its settings when it is imported: a slow machine needs longer to start the temporary server, and
# nothing of a run goes to anybody else.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
os.environ.setdefault("PREFECT_SERVER_DATABASE_TIMEOUT", "60")  # a new SQLite file is locked while it is set up
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_LOGGING_SERVER_LEVEL", "ERROR")
os.environ.setdefault("DO_NOT_TRACK", "1")
