"""A bundle tells what it is made of and what it needs, in a form that scanners read."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement

from fuseline.export.requirements import find_all, tell_requirements
from fuseline.export.sbom import SBOM, write_sbom
from fuseline.records import sha256_of


def test_the_bill_of_materials_keeps_to_the_official_schema(bundle: Path) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str((bundle / SBOM).read_text()) is None


def test_the_model_comes_with_the_digests_of_its_files_its_data_and_what_it_began_as(
    bundle: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    write_sbom(copy, "tiny", "classification", "d" * 64, {"text": "bert at 12", "image": "resnet18"}, ["text", "image"])
    model = json.loads((copy / SBOM).read_text())["metadata"]["component"]
    files = {each["name"]: each["hashes"][0]["content"] for each in model["components"]}
    assert (model["type"], model["name"]) == ("machine-learning-model", "tiny")
    assert {"model.onnx", "model.onnx.data", "tokenizer.json"} <= set(files)
    assert all(digest == sha256_of(copy / name) for name, digest in files.items())
    assert model["modelCard"]["modelParameters"]["datasets"][0]["name"].endswith("d" * 64)
    assert [each["name"] for each in model["pedigree"]["ancestors"]] == ["resnet18", "bert at 12"]
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str((copy / SBOM).read_text()) is None


def test_each_package_that_is_needed_comes_with_version_purl_licence_and_what_it_needs(bundle: Path) -> None:
    document = json.loads((bundle / SBOM).read_text())
    libraries = {each["name"]: each for each in document["components"]}
    assert libraries["tokenizers"]["purl"] == f"pkg:pypi/tokenizers@{version('tokenizers')}"
    assert [name for name, each in libraries.items() if not each.get("licenses")] == []
    needs = {each["ref"]: each["dependsOn"] for each in document["dependencies"]}
    assert libraries["numpy"]["purl"] in needs["model"]
    assert libraries["huggingface-hub"]["purl"] in needs[libraries["tokenizers"]["purl"]]
    assert {"torch", "transformers", "fuseline"} & set(libraries) == set()


def test_the_same_bundle_gives_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    written = []
    for name in ("one", "two"):
        copy = Path(shutil.copytree(bundle, tmp_path / name))
        write_sbom(copy, "tiny", "classification", "0" * 64, {}, ["text", "image"])
        written.append((copy / SBOM).read_bytes())
    (copy / "README.md").write_text("other")
    write_sbom(copy, "tiny", "classification", "0" * 64, {}, ["text", "image"])
    assert written[0] == written[1] != (copy / SBOM).read_bytes()


@pytest.mark.parametrize("modalities", [["text"], ["image"], ["audio"], ["text", "image", "audio"]], ids="+".join)
def test_the_requirements_pin_all_that_is_needed_to_what_is_installed(modalities: list[str]) -> None:
    lines = [line for line in tell_requirements(modalities).splitlines() if not line.startswith("#")]
    needs = [Requirement(line) for line in lines]
    assert all(str(need.specifier) == f"=={version(need.name)}" for need in needs)
    assert {need.name for need in needs} == set(find_all(modalities))
    own = {"text": "tokenizers", "image": "pillow", "audio": "soundfile"}
    assert {name for name, package in own.items() if package in find_all(modalities)} == set(modalities)
    assert needs[1].name == "numpy"
