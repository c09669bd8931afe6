"""Trained models: every output of the streamed model equals the offline one's."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.streaming.onestream import check
from zoo import catalog

pytestmark = pytest.mark.models

AXES = {
    "nsnet2": {"input": 1},
    "silero-seq": {"input": 0},
    "dfn3-enc": {"feat_erb": 2, "feat_spec": 2},
    "dfn3-erb": {"emb": 1, "e3": 2, "e2": 2, "e1": 2, "e0": 2},
    "dfn3-df": {"emb": 1, "c0": 2},
}


@pytest.mark.parametrize("name", AXES)
def test_model(name) -> None:
    """Purely causal, so without delay and without masks."""
    side = {}
    if name == "silero-seq":
        side = {k: np.full((1, 1, 128), 0.1, np.float32) for k in ("h", "c")}
    proto = onnx.load(catalog.path(name))
    step = check(proto, AXES[name], (1, 2, 7, 30), side=side, chunks=(None, 3), tol=1e-4)
    assert step.chunk == 1 and set(step.latency.values()) == {0}
    assert step.spec.position is None and step.spec.valid is None


def test_nsnet2_over_ten_seconds() -> None:
    check(onnx.load(catalog.path("nsnet2")), AXES["nsnet2"], (500,), chunks=(None,), tol=1e-5)
