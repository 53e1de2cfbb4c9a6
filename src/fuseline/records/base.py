"""What all records share: read strictly, written sorted; and digests of files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fuseline.errors import FuselineError

System = Literal["ensemble", "student"]
"""What a bundle may hold: all members together, or the one that learnt from them."""
OTHER: dict[System, System] = {"ensemble": "student", "student": "ensemble"}
"""What stands beside the system that is exported, where there is a student."""


Variant = Literal["fp32", "fused", "fp16", "int8"]
"""How a graph is written: in single precision with ONNX's own operators, the same with onnxruntime's, in half precision
with these, or in eight bits."""
Kind = Literal["quality", "serving"]
"""What a gate's rule is a rule of: what the model has learned, on which data; or how it is served."""


class Record(BaseModel):
    """A frozen JSON document with a fixed set of keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the record at `path`.

        Raises:
            FuselineError: the file is missing, is not JSON, or lacks or adds keys.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise FuselineError(f"{path}: cannot be read ({error.strerror})") from error
        return cls.parse(data, path)

    @classmethod
    def parse(cls, data: bytes, path: Path) -> Self:
        """Make the record of the bytes that were read at `path`; errors as of `read`."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the document"
            raise FuselineError(f"{path}: not a valid {cls.__name__} record at {where}: {first['msg']}") from error

    def write(self, path: Path) -> None:
        """Write sorted, indented JSON, whole or not at all."""
        write_json(path, self.model_dump(mode="json"))


def write_json(path: Path, document: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
    """Write sorted, indented JSON through a temporary file; NaN is refused."""
    text = json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text + "\n", encoding="utf-8")
    os.replace(part, path)


def sha256_of(path: Path) -> str:
    """Return the hex sha256 of a file, read in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(path: Path) -> str:
    """Return the hex sha256 of a file, read once in the life of a process as long as it stays the same."""
    found = path.stat()
    return _digest(path.absolute(), found.st_size, found.st_mtime_ns, found.st_ino)


@lru_cache(maxsize=100_000)
def _digest(path: Path, size: int, mtime_ns: int, inode: int) -> str:
    return sha256_of(path)


FileName = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
"""A file of the folder that the record lies in, and of no other."""
Count = Annotated[int, Field(ge=0)]
