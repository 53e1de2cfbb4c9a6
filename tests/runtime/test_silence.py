"""Who answers rows tells nobody."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import fuseline

CODE = """
import sys
from pathlib import Path
from fuseline.runtime import Predictor, Row
print(len(list(Predictor(Path(sys.argv[1]), ["CPUExecutionProvider"]).answer([Row("sea")]))))
"""


def test_onnxruntime_makes_no_device_id_to_report_under(bundle: Path, tmp_path: Path) -> None:
    source = str(Path(fuseline.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", CODE, str(bundle)], capture_output=True, text=True, check=True,
                          timeout=60, env={"HOME": str(tmp_path), "PYTHONPATH": source})  # fmt: skip
    assert (done.stdout, done.stderr) == ("1\n", "")
    assert list(tmp_path.rglob("*")) == []
