"""Random networks, lengths and cuttings: the streamed frames are the offline model's."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from headrace.errors import NotStreamable
from headrace.frontends.onnx import load
from headrace.streaming.reference import ReferenceStream
from headrace.streaming.rewrite import stream
from tests.streaming.onestream import close, cuts, drive, offline
from tests.streaming.random_nets import nets, text


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(net=nets(), seed=st.integers(0, 2**20), factor=st.sampled_from([1, 1, 2, 3]))
def test_random_network(net, seed, factor) -> None:
    note(text(net))
    model, rng = load(net), np.random.default_rng(seed)
    multiple = None
    try:
        step = stream(model, {"x": 2})
    except NotStreamable as refused:
        assert refused.node and "joins" in refused.reason, refused
        if "multiple=" not in refused.hint:
            return
        multiple = {"x": 12}
        try:
            step = stream(model, {"x": 2}, multiple=multiple)
        except NotStreamable as again:
            assert again.node and "joins" in again.reason, again
            return
    if factor > 1:
        step = stream(model, {"x": 2}, multiple=multiple, chunk=step.chunk * factor)
    live, session = ReferenceStream(step), offline(net)
    unit = step.spec.multiple
    least = -(-step.spec.min_length // unit)
    for total in {unit * int(least + extra) for extra in (0, 1, *rng.integers(0, 40 // unit + 2, 3))}:
        x = rng.standard_normal((1, int(model.inputs["x"].shape[1]), total)).astype(np.float32)
        (want,) = session.run(None, {"x": x})
        got = drive(live, step, {"x": x}, {"x": 2}, cuts(total, rng))
        close(want, next(iter(got.values())), f"T={total}", 1e-4)
