"""Ask `fuseline serve`, with Python's standard library alone.

python examples/clients/http_client.py --text "slice of watermelon" --image melon.png
"""

import argparse
import base64
import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

TRIES = 5


def make_row(text: str | None, images: list[Path], audio: Path | None) -> dict[str, Any]:
    """Write a row as the server takes it."""
    files = [base64.b64encode(path.read_bytes()).decode() for path in images]
    row: dict[str, Any] = {} if text is None else {"text": text}
    if files:
        row["image"] = files if len(files) > 1 else files[0]
    if audio is not None:
        row["audio"] = base64.b64encode(audio.read_bytes()).decode()
    return row


def ask(server: str, rows: list[dict[str, Any]]) -> Any:
    """Return the server's answers, in order; a server that is busy is asked again when it says.

    Raises:
        SystemExit: it refuses, with its reason.
    """
    body = json.dumps({"rows": rows}).encode()
    for left in reversed(range(TRIES)):
        request = urllib.request.Request(f"{server}/v1/predict", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.load(response)["answers"]
        except urllib.error.HTTPError as error:
            if error.code != 503 or not left:
                raise SystemExit(f"error: {json.load(error)['detail']}") from None
            time.sleep(float(error.headers.get("Retry-After", 1)))
    raise AssertionError


def main() -> None:
    """Print the answer to one row, as JSON."""
    parser = argparse.ArgumentParser(description="Ask a server.")
    parser.add_argument("--server", default="http://127.0.0.1:8000")
    parser.add_argument("--text")
    parser.add_argument(
        "--image", type=Path, action="append", default=[], help="Several times where rows have several."
    )
    parser.add_argument("--audio", type=Path)
    given = parser.parse_args()
    [answer] = ask(given.server, [make_row(given.text, given.image, given.audio)])
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
