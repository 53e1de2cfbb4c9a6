"""Files to sections: all mistakes at once, each with its key."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from fuseline.config.base import Section, Whole
from fuseline.config.gate import Publish
from fuseline.config.params import Params
from fuseline.config.search import Search
from fuseline.errors import ConfigError


class _UniqueKeys(yaml.SafeLoader):
    """A key given twice is an error, not the last one's silent victory."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise ConfigError(
                    f"{node.start_mark.name}: key {key!r} is given twice, near line {node.start_mark.line + 1}"
                )
        return super().construct_mapping(node, deep)


class _PublishAlone(Section):
    """params.yaml as far as a rollback goes: nobody who is half-way through an edit elsewhere is kept from it."""

    model_config = ConfigDict(extra="ignore")

    publish: Publish


def load(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml.

    Raises:
        ConfigError: naming every wrong key at once, with its value and what was expected.
    """
    return check(path, read(path))


def read(path: Path) -> Any:
    """Read a YAML file, unchecked but for keys given twice.

    Raises:
        ConfigError: it cannot be read.
    """
    with _reader(path) as reader:
        return reader.get_single_data()


def load_search(path: Path) -> Search:
    """Read and check a file of `fuseline tune`; raises as load does."""
    return _check(path, Search, read(path))


def check(path: Path, document: Any) -> Params:
    """Check what stands, or would stand, in params.yaml; raises as load does."""
    return _check(path, Params, document)


def load_publish(path: Path) -> Publish:
    """Read and check the section `publish` of params.yaml, whatever the other sections say.

    Raises:
        ConfigError: naming every wrong key of that section; or the file is no YAML.
    """
    with _reader(path) as reader:
        node = reader.get_single_node()
        if isinstance(node, yaml.MappingNode):
            node.value = [pair for pair in node.value if pair[0].value == "publish"]
        document = None if node is None else reader.construct_document(node)
    return _check(path, _PublishAlone, document).publish


@contextmanager
def _reader(path: Path) -> Iterator[_UniqueKeys]:
    try:
        with path.open(encoding="utf-8") as file:
            yield _UniqueKeys(file)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error


def _check(path: Path, kind: type[Whole], document: Any) -> Whole:
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        lines = "\n".join(f"  {_explain(one)}" for one in error.errors())
        raise ConfigError(f"{path}: {error.error_count()} wrong\n{lines}") from error


def _explain(error: ErrorDetails) -> str:
    where = ".".join(map(str, error["loc"])) or "the document"
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key{_likely_slip(error['loc'])}; remove it"
    if error["type"] == "missing":
        return f"{where}: missing; add it"
    value = "" if isinstance(error["input"], dict) else f" (found {error['input']!r})"
    if isinstance(error["input"], bool) and error["type"] == "string_type":
        value += "; YAML reads yes, no, on and off as truth values: put them in quotes"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}{value}"


def _likely_slip(loc: tuple[int | str, ...]) -> str:
    known = {field.alias or name for section in _sections(Section) for name, field in section.model_fields.items()}
    close = difflib.get_close_matches(str(loc[-1]), sorted(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _sections(root: type[Section]) -> list[type[Section]]:
    return [each for child in root.__subclasses__() for each in (child, *_sections(child))]
