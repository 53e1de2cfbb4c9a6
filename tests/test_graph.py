"""DVC does not see imports: dvc.yaml has to name all code that a stage runs, or stale results are reused in silence.

That it names the params that a stage reads is tested in stages/test_keys.py.
"""

import ast
from pathlib import Path

import grimp
import pytest
import yaml

ROOT = Path(__file__).parents[1]
STAGES = {
    name: stage.get("do", stage) for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items()
}
WITHOUT_CODE = {"fuseline", "fuseline.stages"}
"""Packages whose __init__ holds a docstring and the version alone."""


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("fuseline", cache_dir=None)


def file_of(module: str) -> Path:
    path = ROOT / "src" / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def covered(file: Path, deps: list[str]) -> bool:
    return any(file == ROOT / dep or ROOT / dep in file.parents for dep in deps)


def test_all_stages_are_looked_at():
    modules = {path.stem for path in (ROOT / "src/fuseline/stages").glob("*.py")} - {"__init__", "entry"}
    assert set(STAGES) == modules
    assert len(STAGES) == 12


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_all_code_that_it_imports(stage, imports):
    modules = imports.find_upstream_modules(f"fuseline.stages.{stage}") | {f"fuseline.stages.{stage}"}
    undeclared = [m for m in sorted(modules - WITHOUT_CODE) if not covered(file_of(m), STAGES[stage]["deps"])]
    assert not undeclared


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_no_code_that_it_does_not_import(stage, imports):
    modules = imports.find_upstream_modules(f"fuseline.stages.{stage}") | {f"fuseline.stages.{stage}"}
    files = [file_of(module) for module in modules]
    code = [dep for dep in STAGES[stage]["deps"] if dep.startswith("src/")]
    assert [dep for dep in code if not any(covered(file, [dep]) for file in files)] == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_locked_versions(stage):
    assert "requirements.lock" in STAGES[stage]["deps"]


@pytest.mark.parametrize("package", sorted(WITHOUT_CODE))
def test_packages_that_no_stage_declares_hold_no_code(package):
    body = ast.parse(file_of(package).read_text()).body
    assert all(isinstance(node, ast.Expr | ast.Assign | ast.Import) for node in body)
