"""The bundle in service: onnxruntime, tokenizers, numpy and Pillow; no torch.

`from fuseline.runtime import Predictor, Row`; what they need is imported when they are first named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fuseline.runtime.predictor import Answer, Predictor, Row

__all__ = ["Answer", "Predictor", "Row"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fuseline.runtime import predictor

    return getattr(predictor, name)
