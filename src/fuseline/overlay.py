"""Lay a few keys over params.yaml: another data set, another recipe. Comments and order stay as they are."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from fuseline import config
from fuseline.errors import ConfigError

REMOVE = "!remove"
"""Tag of a key that is to go."""


def lay(params: Path, *overlays: Path) -> list[list[str]]:
    """Write overlays' keys into params.yaml, one after the other: all of them, or none.

    Mappings are merged, what is tagged `!remove` goes, the rest replaces.

    Returns:
        The dotted keys that each overlay changed.

    Raises:
        ConfigError: a file is no mapping in YAML, or what comes of it is not sound; then nothing is written.
    """
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 120
    yaml.representer.add_representer(type(None), lambda to, _: to.represent_scalar("tag:yaml.org,2002:null", "null"))
    yaml.indent(mapping=2, sequence=4, offset=2)
    document = _read(yaml, params)
    changed = [_merge(document, _read(yaml, overlay)) for overlay in overlays]
    text = io.StringIO()
    yaml.dump(document, text)
    try:
        config.check(params, YAML(typ="safe", pure=True).load(text.getvalue()))
    except ConfigError as error:
        laid = ", ".join(map(str, overlays))
        raise ConfigError(f"with {laid} laid over it, nothing was written: {error}") from error
    part = params.with_name(params.name + ".part")
    part.write_text(text.getvalue(), encoding="utf-8")
    os.replace(part, params)
    return changed


def _read(yaml: YAML, path: Path) -> MutableMapping[str, Any]:
    try:
        document = yaml.load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(document, MutableMapping):
        raise ConfigError(f"{path}: expected keys of params.yaml, such as task or validate, with what they are to be")
    return document


def _merge(document: MutableMapping[str, Any], patch: Mapping[str, Any], where: str = "") -> list[str]:
    changed = []
    for key, value in patch.items():
        if str(getattr(value, "tag", "")) == REMOVE:
            if key in document:
                del document[key]
                changed.append(f"{where}{key}")
        elif isinstance(value, Mapping) and value and isinstance(document.get(key), MutableMapping):
            changed += _merge(document[key], value, f"{where}{key}.")
        elif key not in document or document[key] != value:
            document[key] = value
            changed.append(f"{where}{key}")
    return changed
