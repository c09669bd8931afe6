"""Stream a hand-made model in the reference driver and compare with the offline model in onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort

from headrace.frontends.onnx import load
from headrace.streaming.reference import ReferenceStream
from headrace.streaming.rewrite import stream

OPTIONS = ort.SessionOptions()
OPTIONS.log_severity_level = 4
OPTIONS.intra_op_num_threads = 1


def offline(proto: onnx.ModelProto):
    return ort.InferenceSession(proto.SerializeToString(), OPTIONS)


def cuts(total: int, rng: np.random.Generator) -> list[int]:
    """Sizes of pieces, some empty, that add up to total."""
    sizes = []
    while total:
        size = min(total, int(rng.integers(0, 1 + int(rng.choice([1, 2, 7, 40])))))
        sizes.append(size)
        total -= size
    return sizes


def drive(live, step, feeds, axes, sizes, side=None):
    """All frames in pieces; outputs joined; push must return exactly what is ready."""
    live.reset(**(side or {}))
    start, got = 0, []
    rates = {k: port.rate[0] for k, port in step.spec.inputs.items()}
    for size in sizes:
        places = {k: range(start * r, (start + size) * r) for k, r in rates.items()}
        piece = {k: np.take(v, places[k], axes[k]) for k, v in feeds.items()}
        got.append(live.push(piece))
        start += size
        for name in step.spec.outputs:
            count = sum(g[name].shape[step.spec.outputs[name].axis] for g in got)
            assert count == step.ready(name, start // step.chunk * step.chunk), (name, start, count)
    got.append(live.flush())
    out = {k: np.concatenate([g[k] for g in got], p.axis) for k, p in step.spec.outputs.items()}
    return {**out, **{k: got[-1][k] for k in step.spec.finals}}


def close(want, got, name, tol=2e-5):
    assert want.shape == got.shape, (name, want.shape, got.shape)
    if want.dtype.kind in "iub":
        np.testing.assert_array_equal(want, got, err_msg=name)
        return
    scale = max(1.0, float(np.max(np.abs(want), initial=0)))
    worst = float(np.max(np.abs(want.astype(np.float64) - got), initial=0))
    assert not np.isnan(got).any() and worst <= tol * scale, (name, worst, scale)


def check(proto, axes, lengths, seed=0, side=None, chunks=(None, 2, 3), tol=2e-5, feeds=None, bound=None, **options):
    """Random signals of these lengths in random pieces; returns the step model."""
    model, options = load(proto), {**options, **({"lengths": bound} if bound else {})}
    session = offline(proto)
    rng = np.random.default_rng(seed)
    first = stream(model, axes, **options)
    names = [v.name for v in session.get_outputs()]
    for factor in chunks:
        step = first if factor is None else stream(model, axes, chunk=first.chunk * factor, **options)
        onnx.checker.check_model(step.proto)
        live = ReferenceStream(step)
        for total in lengths:
            if total < step.spec.min_length:
                continue
            sizes = {k: {axes[k]: total * step.spec.inputs[k].rate[0]} for k in axes}
            made = feeds(total, rng) if feeds else {k: random_input(model.inputs[k], sizes[k], rng) for k in axes}
            want = dict(zip(names, session.run(None, {**made, **(side or {})}), strict=True))
            got = drive(live, step, {k: made[k] for k in axes}, axes, cuts(total, rng), side)
            assert set(want) == set(got)
            for name in want:
                close(want[name], got[name], f"{name} T={total} chunk={step.chunk}", tol)
    return first


def random_input(spec, fixed, rng):
    shape = [fixed.get(a, d if isinstance(d, int) else 1) for a, d in enumerate(spec.shape)]
    if np.dtype(spec.dtype).kind in "iu":
        return rng.integers(0, 100, shape).astype(spec.dtype)
    return rng.standard_normal(shape).astype(spec.dtype)
