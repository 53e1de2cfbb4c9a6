"""The bundle's bill of materials, CycloneDX 1.6: what it is made of and needs, for scanners and auditors.

Written without a time and with a number drawn from its own content: the same bundle gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import fuseline
from fuseline.export.requirements import find_all, find_direct, name_of
from fuseline.records import sha256_of, write_json

SBOM = "sbom.cdx.json"
MODEL_REF = "model"
LONGEST = 60
"""Of a licence's name: some packages give its whole text."""


def write_sbom(
    folder: Path, name: str, task: str, data: str, bases: Mapping[str, str], modalities: Sequence[str]
) -> None:
    """Write sbom.cdx.json of a bundle's folder; what is written there later is not in it.

    Args:
        data: sha256 of the data set's manifest.
        bases: by modality, what its encoder began as.
    """
    needs = find_all(modalities)
    model = _model(folder, name, task, data, bases)
    direct = [_purl(each) for each in find_direct(modalities)]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"tools": {"components": [_tool()]}, "component": model},
        "components": [_library(each) for each, _ in needs.values()],
        "dependencies": [
            {"ref": MODEL_REF, "dependsOn": sorted(direct)},
            *(
                {"ref": _purl(each), "dependsOn": [_purl(needs[need][0]) for need in names]}
                for each, names in needs.values()
            ),
        ],
    }
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    number = uuid.uuid5(uuid.NAMESPACE_URL, f"https://cyclonedx.org/bom/{digest}")
    write_json(folder / SBOM, document | {"serialNumber": f"urn:uuid:{number}"})


def _tool() -> dict[str, Any]:
    return {"type": "application", "name": "fuseline", "version": fuseline.__version__}


def _model(folder: Path, name: str, task: str, data: str, bases: Mapping[str, str]) -> dict[str, Any]:
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.name != SBOM}
    whole = hashlib.sha256("".join(f"{each}\0{digest}\n" for each, digest in files.items()).encode()).hexdigest()
    return {
        "type": "machine-learning-model",
        "bom-ref": MODEL_REF,
        "name": name,
        "version": whole[:12],
        "description": "Its version is of the digests of its files.",
        "components": [
            {"type": "file", "name": each, "hashes": [{"alg": "SHA-256", "content": digest}]}
            for each, digest in files.items()
        ],
        "modelCard": {
            "modelParameters": {
                "task": task,
                "datasets": [{"type": "dataset", "name": f"data/manifest.json at sha256 {data}"}],
            }
        },
        "pedigree": {
            "ancestors": [
                {"type": "machine-learning-model", "name": base, "description": f"where the {modality} encoder began"}
                for modality, base in sorted(bases.items())
            ]
        },
    }


def _library(found: Distribution) -> dict[str, Any]:
    purl = _purl(found)
    return {
        "type": "library", "bom-ref": purl, "name": name_of(found), "version": found.version, "purl": purl,
    } | _licence(found)  # fmt: skip


def _purl(found: Distribution) -> str:
    return f"pkg:pypi/{name_of(found)}@{found.version.replace('+', '%2B')}"


def _licence(found: Distribution) -> dict[str, Any]:
    """Return a package's licence as its metadata tells: an SPDX expression, or a name; nothing where it tells none."""

    def told(key: str) -> list[str]:
        return [str(line).strip() for line in found.metadata.get_all(key) or []]

    for expression in told("License-Expression"):
        return {"licenses": [{"expression": expression}]}
    classified = [line.rpartition(" :: ")[2] for line in told("Classifier") if line.startswith("License ")]
    short = [line for line in told("License") if line and len(line) <= LONGEST and "\n" not in line]
    names = sorted(set(classified or short))
    return {"licenses": [{"license": {"name": name}} for name in names]} if names else {}
