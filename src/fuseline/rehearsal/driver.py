"""What runs in the clean environment: the README's snippet, once for each question. It knows nothing of Fuseline.

Arguments: the questions, a JSON list of constants for the snippet, and the file to write; it runs in the bundle.
"""

from __future__ import annotations

import contextlib
import io
import json
import platform
import re
import sys
import time
from importlib.metadata import distributions
from pathlib import Path
from typing import Any


def main(questions: Path, target: Path) -> None:
    """Answer all questions."""
    (code,) = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(encoding="utf-8"), re.DOTALL)
    answers = [ask(code, constants) for constants in json.loads(questions.read_text(encoding="utf-8"))]
    installed = {re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower(): one.version for one in distributions()}
    document = {"answers": answers, "installed": installed, "python": platform.python_version()}
    target.write_text(json.dumps(document), encoding="utf-8")


def ask(code: str, constants: dict[str, Any]) -> dict[str, Any]:
    """Run the snippet with other constants; return its probabilities, what it printed and how long that took."""
    for name, value in constants.items():
        line = f"{name} = {value!r}"
        code, changed = re.subn(rf"^{name} = .*$", lambda _, line=line: line, code, flags=re.MULTILINE)  # type: ignore[misc]
        if changed != 1:
            raise ValueError(f"README.md: its snippet has {changed} lines that set {name}; expected one")
    names: dict[str, Any] = {"__name__": "__main__"}
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, "README.md", "exec"), names)  # noqa: S102 (what a reader of the README would run)
    seconds = time.perf_counter() - began
    return {"probabilities": names["probabilities"].tolist(), "printed": printed.getvalue(), "seconds": seconds}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
