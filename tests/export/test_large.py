"""Weights beyond 2 GB, more than one protobuf message can hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import psutil
import pytest

from fuseline.export.graph import save, share

NEEDED = 8_000_000_000


@pytest.mark.slow
@pytest.mark.skipif(psutil.virtual_memory().available < NEEDED, reason="needs 8 GB of free memory")
def test_weights_beyond_two_gigabytes_stand_beside_the_graph_and_answer(tmp_path: Path) -> None:
    weights_IO = np.zeros((24_000, 25_001), dtype=np.float32)
    weights_IO[-1, -1] = 2.0
    given, made = (
        ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", size]))
        for name, size in zip(("given", "made"), weights_IO.shape, strict=True)
    )
    held = ir.Value(name="weights", const_value=ir.tensor(weights_IO))
    held.dtype, held.shape = ir.DataType.FLOAT, ir.Shape(weights_IO.shape)
    node = ir.Node("", "MatMul", [given, held], outputs=[made])
    model = ir.Model(
        ir.Graph([given], [made], nodes=[node], initializers=[held], opset_imports={"": 20}, name="large"),
        ir_version=10,
    )
    share(model)
    save(model, tmp_path / "model.onnx", {"name": "large"})
    assert (tmp_path / "model.onnx").stat().st_size < 1000
    assert (tmp_path / "model.onnx.data").stat().st_size == weights_IO.nbytes > 2**31
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    session = ort.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"given": np.full((1, 24_000), 3.0, dtype=np.float32)})
    assert (found[0, -1], np.abs(found[0, :-1]).max()) == (6.0, 0.0)
