"""What the code may import: rooms below it, through the doors that pyproject.toml names, from packages it declares."""

import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import grimp
import pytest
from importlinter.api import read_configuration
from importlinter.application.use_cases import lint_imports

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
OURS = ("fuseline", "flows")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_contract_of_imports_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    kept = lint_imports(config_filename=str(PYPROJECT), cache_dir=None)
    assert kept, capsys.readouterr().out


def test_the_contracts_look_at_all_of_our_code() -> None:
    found = read_configuration(str(PYPROJECT))
    assert found["session_options"]["root_packages"] == list(OURS)
    assert len(found["contracts_options"]) == 7


def test_every_package_that_is_imported_is_a_declared_dependency() -> None:
    declared = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    names = {canonical(re.match(r"[\w.-]+", dependency)[0]) for dependency in declared}
    graph = grimp.build_graph(*OURS, include_external_packages=True, cache_dir=None)
    imported = {module.split(".")[0] for module in graph.modules} - {*OURS, *sys.stdlib_module_names}
    owners = importlib.metadata.packages_distributions()
    assert [name for name in sorted(imported) if not names & {*map(canonical, owners[name])}] == []
    assert len(imported) > 20
