"""A session leaves the processors to others when it has nothing to do."""

from __future__ import annotations

import time
from pathlib import Path

from fuseline.runtime.predictor import Predictor
from tests.export.test_bundle import draw

CALLS, PAUSE = 20, 0.05
"""onnxruntime's own waiting lasts about as long as the pause."""


def test_its_threads_do_not_wait_by_burning_processors(bundle: Path) -> None:
    predictor = Predictor(bundle, ["CPUExecutionProvider"], threads=3)
    feeds = draw(8, 12, 64, 64)
    idle = 0.0
    for _ in range(CALLS):
        predictor.session.run(["logits"], feeds)
        before = time.process_time()
        time.sleep(PAUSE)
        idle += time.process_time() - before
    assert idle < 0.25 * CALLS * PAUSE
