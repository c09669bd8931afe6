"""Correlations in tiles: what they compute, what they leave alone, how they choose, how exact they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.program import interp, winograd
from headrace.program.build import Builder
from headrace.program.expr import Axis, const, load, var
from headrace.program.fuse import fuse
from headrace.program.ir import Buffer, Define, Loop, Module, Store
from headrace.program.linear import apply
from headrace.program.optimise import optimise
from headrace.program.pad import pad_guarded
from headrace.program.split import split_axes, split_guards
from headrace.program.toom_cook import filtering
from headrace.program.verify import verify
from headrace.program.winograd import filter_minimally
from headrace.program.winograd_cost import Choice, Shape, chosen
from headrace.schedule.steps import macs
from tests.codegen.native import Native
from tests.program.convolution import Conv, module, reference
from tests.program.passes import defines, loops, preserves

TILES = ((2, 2), (4, 4), (2, 4), (4, 2))
AFTER = ("", "relu", "tanh", "residual", "sum", "both")


def padded(m: Module) -> Module:
    """As it comes to the pass."""
    return split_guards(pad_guarded(split_axes(m)))


@pytest.fixture
def force(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Sets the choice for every correlation."""

    def choose(tile: tuple[int, ...], rows: int) -> None:
        def choice(shape: Shape, lanes: int, constants: int) -> Choice:
            return Choice(tile[: len(shape.extents)], rows, "forced")

        monkeypatch.setattr(winograd, "chosen", choice)

    return choose


# --- matrices ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [2, 4])
def test_minimal_filtering_is_correlation(m: int) -> None:
    f, rng = filtering(m), np.random.default_rng(m)
    for _ in range(20):
        x, w = rng.standard_normal(m + 2), rng.standard_normal(3)
        got = f.outputs @ ((f.weights @ w) * (f.inputs @ x))
        np.testing.assert_allclose(got, np.correlate(x, w, "valid"), rtol=0, atol=1e-13)
    assert f.products == m + 2
    assert np.array_equal(f.inputs.astype(np.float32), f.inputs) and np.array_equal(
        f.outputs.astype(np.float32), f.outputs
    )


@settings(max_examples=30, deadline=None)
@given(data=st.data(), rows=st.integers(1, 6), columns=st.integers(1, 6))
def test_small_matrices_written_out(data: st.DataObject, rows: int, columns: int) -> None:
    entries = st.lists(st.sampled_from([0.0, 1.0, -1.0, 0.5, -0.5, 2.0]), min_size=columns, max_size=columns)
    matrix = np.array(data.draw(st.lists(entries, min_size=rows, max_size=rows)))
    zero = data.draw(st.lists(st.booleans(), min_size=columns, max_size=columns))
    x = Buffer("x", "f32", (columns,), "input")
    given_ = [None if z else load(x, (n,)) for n, z in enumerate(zero)]
    found = apply(matrix, given_)
    y = Buffer("y", "f32", (rows,), "output")
    one = var("one", 1)
    values = {n: v for n, v in enumerate(found) if v is not None}
    numbers = np.random.default_rng(rows).integers(-8, 8, columns).astype(np.float32)
    expected = matrix @ np.where(zero, 0, numbers)
    assert all(expected[n] == 0 for n in range(rows) if n not in values)
    if values:
        stores = tuple(Store(y, (const(n, "index"),), values.get(n, const(0.0, "f32"))) for n in range(rows))
        whole = Module("m", [x], [y], [Define((Axis(one, 1),), stores)])
        np.testing.assert_array_equal(interp.run(whole, {"x": numbers})["y"], expected)


# --- what it computes --------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    c=st.builds(
        Conv,
        batch=st.integers(1, 2),
        channels=st.integers(1, 6),
        rows=st.integers(3, 15),
        columns=st.integers(3, 15),
        outputs=st.integers(2, 9),
        pad=st.integers(0, 2),
        after=st.sampled_from(AFTER),
        seed=st.integers(0, 99),
    ),
    tile=st.sampled_from(TILES),
    rows=st.integers(1, 4),
)
def test_tiles_compute_the_convolution(c: Conv, tile: tuple[int, int], rows: int, force) -> None:  # type: ignore[no-untyped-def]
    force(tile, rows)
    before, feeds = padded(module(c)), c.feeds()
    after = preserves(lambda m: filter_minimally(m, 8), before, feeds)
    is_left = 1 in c.shape[2:]
    assert (after.body == before.body) == (c.shape[2:] == (1, 1)) or is_left
    whole = preserves(lambda m: optimise(m, 8), module(c), feeds)
    for name, wanted in reference(c, feeds).items():
        assert np.abs(interp.run(whole, feeds)[name] - wanted).max() <= 3e-6 * np.abs(wanted).max(), name


def test_fewer_products(force) -> None:  # type: ignore[no-untyped-def]
    c = Conv(channels=8, rows=16, columns=16, outputs=8)
    before = padded(module(c))
    for tile, share in (((2, 2), 16 / 36), ((4, 4), 36 / 144)):
        force(tile, 99)
        after = filter_minimally(before, 8)
        assert sum(map(macs, defines(after))) == share * sum(map(macs, defines(before)))
        assert any("forced" in n for n in after.notes)


@pytest.mark.parametrize("rows", [2, 99])
def test_strips_run_as_c(rows: int, force) -> None:  # type: ignore[no-untyped-def]
    c = Conv(batch=2, channels=20, rows=27, columns=13, outputs=19, after="residual")
    force((4, 4), rows)
    whole, feeds = optimise(module(c), 8), c.feeds()
    assert len(loops(whole)) == (rows < 7)
    got, wanted = Native(whole).run(feeds)["y"], reference(c, feeds)["y"]
    assert np.abs(got - wanted).max() <= 3e-6 * np.abs(wanted).max()


def test_one_sample_does_not_reach_another(force) -> None:  # type: ignore[no-untyped-def]
    c = Conv(batch=3, channels=4, rows=9, columns=7, outputs=6)
    force((4, 4), 1)
    whole, feeds = optimise(module(c), 8), c.feeds()
    wanted = interp.run(whole, feeds)["y"]
    feeds["x"][1] = np.nan
    with np.errstate(all="ignore"):
        got = interp.run(whole, feeds)["y"]
    np.testing.assert_array_equal(got[[0, 2]], wanted[[0, 2]])


def test_taps_along_one_axis(force) -> None:  # type: ignore[no-untyped-def]
    force((4,), 2)
    rng = np.random.default_rng(0)
    taps = rng.standard_normal((6, 5, 3)).astype(np.float32)
    b = Builder()
    x, w = b.input("x", "f32", (5, 23)), b.constant(taps)
    b.output("y", b.compute((6, 21), lambda o, i: b.sum((5, 3), lambda k, s: x[k, i + s] * w[o, k, s])))
    after = preserves(lambda m: filter_minimally(m, 8), fuse(b.module()))
    assert sum(map(macs, defines(after))) < 6 * 5 * 21 * 3 * 0.6


# --- what it leaves alone ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "c",
    [Conv(stride=2), Conv(dilation=2), Conv(kernel=5, pad=2), Conv(kernel=1, pad=0)],
    ids=["stride", "dilation", "five taps", "one tap"],
)
def test_other_windows_stay(c: Conv, force) -> None:  # type: ignore[no-untyped-def]
    force((2, 2), 9)
    before = padded(module(c))
    assert filter_minimally(before, 8).body == before.body


def test_integers_and_weights_that_vary_stay(force) -> None:  # type: ignore[no-untyped-def]
    force((2, 2), 9)
    for before in (padded(module(Conv(), "i32")), padded(module(Conv(), constant=False))):
        assert filter_minimally(before, 8).body == before.body


def test_depthwise_stays(force) -> None:  # type: ignore[no-untyped-def]
    force((2, 2), 9)
    b = Builder()
    x, w = b.input("x", "f32", (5, 9, 9)), b.constant(np.ones((5, 3, 3), np.float32))
    sums = b.compute((5, 7, 7), lambda o, i, j: b.sum((3, 3), lambda s, t: x[o, i + s, j + t] * w[o, s, t]))
    b.output("y", sums)
    before = fuse(b.module())
    assert filter_minimally(before, 8).body == before.body


def test_programs_with_states_stay(force) -> None:  # type: ignore[no-untyped-def]
    force((2, 2), 9)
    b = Builder()
    x, w = b.state("s", np.zeros((4, 9, 9), np.float32)), b.constant(np.ones((5, 4, 3, 3), np.float32))

    def element(o, i, j):  # type: ignore[no-untyped-def]
        return b.sum((4, 3, 3), lambda k, s, t: x[k, i + s, j + t] * w[o, k, s, t])

    b.output("y", b.compute((5, 7, 7), element))
    before = fuse(b.module())
    verify(before)
    assert filter_minimally(before, 8).body == before.body


# --- the choice --------------------------------------------------------------------------------------


def test_choice_by_cost() -> None:
    large = Shape(1, (28, 28), 128, 128)
    assert chosen(large, 8, 0).tile == (4, 4) == chosen(large, 16, 0).tile
    assert chosen(replace(large, channels=8), 8, 0) == Choice(None)
    assert chosen(replace(large, extents=(2, 2)), 8, 0).tile is None
    few = chosen(replace(large, extents=(14, 14), channels=24, columns=24), 8, 0)
    assert few.tile is None and "directly" in few.note
    cold = Shape(1, (7, 7), 512, 512)
    assert chosen(cold, 8, 100 << 20).tile != (4, 4), "weights of large tiles take longer to read than they save"


def test_strips_by_memory() -> None:
    assert chosen(Shape(1, (28, 28), 128, 128), 8, 0).rows == 7
    assert 1 <= chosen(Shape(1, (224, 224), 64, 64), 8, 0).rows < 8


def test_a_loop_only_for_many_strips() -> None:
    c = Conv(channels=64, rows=112, columns=56, outputs=64)
    after = filter_minimally(padded(module(c)), 8)
    assert any(isinstance(s, Loop) for s in after.body)


# --- accuracy ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [32, 512])
@pytest.mark.parametrize("tile", [(2, 2), (4, 4)])
def test_error_against_float64(channels: int, tile: tuple[int, int], force) -> None:  # type: ignore[no-untyped-def]
    """Largest error as a share of the largest output, on normal and on positive data."""
    c = Conv(channels=channels, rows=14, columns=14, outputs=32, after="")
    force(tile, 99)
    program, feeds = Native(optimise(module(c), 8)), c.feeds()
    for x in (feeds["x"], np.maximum(feeds["x"], 0)):
        wanted = reference(c, {**feeds, "x": x})["y"]
        got = program.run({**feeds, "x": x})["y"]
        assert np.abs(got - wanted).max() <= (2e-6 if tile == (2, 2) else 8e-6) * np.abs(wanted).max()
