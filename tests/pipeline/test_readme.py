"""What the README tells people to type works: its commands are run on a published project."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.pipeline.conftest import LABELS, ROOT, shell

BLOCKS = re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
COMMANDS = [line.partition("  #")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]
MAKE = [command for command in COMMANDS if command.startswith("make ")]
REST = [command for command in COMMANDS if not command.startswith(("make ", "git clone"))]


def test_the_readme_has_the_commands_that_are_run_here():
    assert (len(MAKE), len(REST)) == (2, 23)


@pytest.mark.parametrize("command", MAKE)
def test_a_make_target_of_the_readme_exists(command):
    done = subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.pipeline
def test_the_commands_of_the_readme_run_one_after_the_other(published: Path):
    for command in REST:
        ours = command.replace("Food & Drink", LABELS[0])  # of the small data set here
        done = shell(published, "bash", "-euo", "pipefail", "-c", ours)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
