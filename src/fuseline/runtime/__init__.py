"""The bundle in service: onnxruntime, tokenizers, numpy and Pillow; no torch.

`from fuseline.runtime import Predictor, Row`; what they need is imported when they are first named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fuseline.runtime.contributions import Contribution
    from fuseline.runtime.predictor import Answer, Predictor
    from fuseline.runtime.row import Row

__all__ = ["Answer", "Contribution", "Predictor", "Row"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fuseline.runtime import contributions, predictor

    return getattr(contributions if name == "Contribution" else predictor, name)
