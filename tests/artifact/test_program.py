from __future__ import annotations

import gc
import json
import shutil
import threading
import timeit
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from headrace.artifact.program import Program, open_program, open_temporary
from headrace.errors import Error, InvalidModel, TargetError
from headrace.spec import TensorSpec
from tests.artifact import handmade
from tests.artifact.conftest import Build
from tests.artifact.handmade import WEIGHTS

X = np.arange(8, dtype=np.float32).reshape(1, 8)


def test_what_a_program_says_about_itself(demo: Program, demo_path: Path) -> None:
    assert demo.inputs == {"x:0": TensorSpec("float32", (1, 8))}
    assert demo.outputs == {"y:0": TensorSpec("float32", (1, 8))}
    assert demo.path == demo_path
    info = demo.info
    assert (info.memory_bytes, info.state_bytes, info.scratch_bytes, info.weight_bytes) == (64, 32, 32, 32)
    assert info.macs == 8 and info.kernels[0].nodes == ("add", "mul")
    assert info.manifest["schema"] == 1


def test_run_starts_from_the_initial_state(demo: Program) -> None:
    for _ in range(3):
        np.testing.assert_array_equal(demo.run({"x:0": X})["y:0"], X * WEIGHTS)


def test_an_instance_keeps_its_state(demo: Program) -> None:
    one, other = demo.instance(), demo.instance()
    for n in range(1, 4):
        np.testing.assert_array_equal(one.run({"x:0": X})["y:0"], n * X * WEIGHTS)
    np.testing.assert_array_equal(other.run({"x:0": X})["y:0"], X * WEIGHTS)
    one.reset()
    np.testing.assert_array_equal(one.run({"x:0": X})["y:0"], X * WEIGHTS)


def test_state_is_a_copy_and_can_be_restored(demo: Program) -> None:
    one, other = demo.instance(), demo.instance()
    one.run({"x:0": X})
    state = one.state()
    one.run({"x:0": X})
    assert list(state) == ["sum"] and state["sum"].shape == (1, 8)
    np.testing.assert_array_equal(state["sum"], X)
    other.restore(state)
    np.testing.assert_array_equal(other.run({"x:0": X})["y:0"], 2 * X * WEIGHTS)
    with pytest.raises(ValueError, match="state 'sum' has dtype float64, expected float32"):
        other.restore({"sum": X.astype(np.float64)})
    with pytest.raises(ValueError, match="missing state 'sum'"):
        other.restore({})


def test_results_are_the_callers_own(demo: Program) -> None:
    instance = demo.instance()
    first = instance.run({"x:0": X})["y:0"]
    kept = first.copy()
    instance.run({"x:0": X})
    np.testing.assert_array_equal(first, kept)


def test_out_is_written_and_returned(demo: Program) -> None:
    y = np.full((1, 8), -1, np.float32)
    assert demo.instance().run({"x:0": X}, out={"y:0": y})["y:0"] is y
    np.testing.assert_array_equal(y, X * WEIGHTS)
    x = X.copy()
    demo.instance().run({"x:0": x}, out={"y:0": x})  # small arrays are copied, so this is no overlap
    np.testing.assert_array_equal(x, X * WEIGHTS)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"missing input 'x:0'; expected 'x:0': float32 \[1, 8\]"),
        ({"x": X}, r"unknown input 'x'; did you mean 'x:0'\? expected"),
        ({"x:0": X, "more": X}, "unknown input 'more'"),
        ({"x:0": X.astype(np.float64)}, "input 'x:0' has dtype float64, expected float32; convert"),
        ({"x:0": X.astype(np.int32)}, "dtype int32, expected float32"),
        ({"x:0": [[0, 1, 2, 3, 4, 5, 6, 7]]}, "dtype int64, expected float32"),
        ({"x:0": None}, "dtype object, expected float32"),
        ({"x:0": X[0]}, r"rank 1 \(shape \(8,\)\), expected rank 2: float32 \[1, 8\]"),
        ({"x:0": X[:, :7]}, r"has 7 at axis 1 \(shape \(1, 7\)\), expected 8"),
    ],
)
def test_wrong_inputs_are_named(demo: Program, inputs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        demo.run(inputs)
    np.testing.assert_array_equal(demo.run({"x:0": X})["y:0"], X * WEIGHTS)


@pytest.mark.parametrize(
    "x",
    [
        np.repeat(X, 2, axis=1)[:, ::2],
        X[:, ::-1].copy()[:, ::-1],
        X.astype(">f4"),
        np.frombuffer(b"." + X.tobytes(), np.uint8)[1:].view(np.float32).reshape(1, 8),
        np.ma.masked_array(X),
    ],
    ids=["strided", "reversed", "byte-swapped", "unaligned", "masked"],
)
def test_arrays_in_any_layout_are_accepted(demo: Program, x: np.ndarray) -> None:
    np.testing.assert_array_equal(demo.run({"x:0": x})["y:0"], X * WEIGHTS)


def test_errors_of_the_program_are_told(demo: Program) -> None:
    huge = np.full((1, 8), 2e30, np.float32)
    with pytest.raises(Error, match="error 7: the input is too large"):
        demo.run({"x:0": huge})
    with pytest.raises(Error, match="error 7"):
        demo.instance().bind({"x:0": huge}, {"y:0": X.copy()})()


def test_bound_calls_work_on_the_arrays_themselves(demo: Program) -> None:
    x, y = X.copy(), np.empty_like(X)
    instance = demo.instance()
    call = instance.bind({"x:0": x}, {"y:0": y})
    call()
    x += 1
    del instance
    gc.collect()
    call()
    np.testing.assert_array_equal(y, (2 * X + 1) * WEIGHTS)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X[:, ::-1], X.copy(), "input 'x:0' must be C-contiguous"),
        (X.astype(">f4"), X.copy(), "input 'x:0' must be in native byte order"),
        (X, X.astype(np.float64), "output 'y:0' has dtype float64"),
        (X, np.broadcast_to(np.float32(0), (1, 8)), "output 'y:0' must be"),
        (X, np.zeros((8, 1), np.float32), "output 'y:0' has 8 at axis 0"),
    ],
)
def test_arrays_that_cannot_be_bound(demo: Program, x: np.ndarray, y: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        demo.instance().bind({"x:0": x}, {"y:0": y})


def test_overlap_and_constants_cannot_be_bound(demo: Program) -> None:
    block = np.zeros((2, 8), np.float32)
    with pytest.raises(ValueError, match="output 'y:0' overlaps input 'x:0'"):
        demo.instance().bind({"x:0": block[:1]}, {"y:0": block[:1]})
    frozen = X.copy()
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="must be writeable"):
        demo.instance().bind({"x:0": X}, {"y:0": frozen})
    demo.instance().bind({"x:0": frozen}, {"y:0": block[:1]})()
    np.testing.assert_array_equal(block[0], X[0] * WEIGHTS)
    with pytest.raises(TypeError, match="must be a NumPy array, not list"):
        demo.instance().bind({"x:0": [1]}, {"y:0": X})  # type: ignore[dict-item]


@pytest.mark.parametrize("extent", [2, 4, 6])
def test_extents_come_from_the_shapes(rows: Program, extent: int) -> None:
    x = np.arange(3 * extent, dtype=np.float32).reshape(extent, 3)
    result = rows.run({"x": x})
    np.testing.assert_array_equal(result["y"], 2 * x)
    assert result["n"].shape == () and result["n"] == 3 * extent
    y, n = np.empty_like(x), np.empty((), np.int64)
    rows.instance().bind({"x": x}, {"y": y, "n": n})()
    np.testing.assert_array_equal(y, 2 * x)


@pytest.mark.parametrize(
    ("extent", "message"),
    [(8, "T is 8 at axis 0 of input 'x'; allowed are 1 to 6"), (0, "T is 0"), (3, "must be a multiple of 2")],
)
def test_extents_out_of_bounds(rows: Program, extent: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rows.run({"x": np.zeros((extent, 3), np.float32)})


def test_out_of_another_extent(rows: Program) -> None:
    x, n = np.zeros((4, 3), np.float32), np.zeros((), np.int64)
    with pytest.raises(ValueError, match=r"output 'y' has 2 at axis 0"):
        rows.instance().run({"x": x}, out={"y": np.zeros((2, 3), np.float32), "n": n})
    result = rows.instance().run({"x": x}, out={"n": n})
    assert result["n"] is n and n == 12
    with pytest.raises(ValueError, match="overlaps"):
        rows.instance().run({"x": x}, out={"y": x})


@pytest.mark.parametrize(
    ("dtype", "c_type"),
    [
        ("bfloat16", "uint16_t"), ("float8_e4m3fn", "uint8_t"), ("int4", "int8_t"), ("bool", "uint8_t"),
        ("complex64", "uint64_t"), ("float16", "uint16_t"), ("uint64", "uint64_t"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("count", [4, 20_000])
def test_every_element_type(dtype: str, c_type: str, count: int, tmp_path: Path, build_native: Build) -> None:
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    generated = handmade.copied(dtype, c_type, kind.itemsize, count)
    program = open_program(build_native(generated, tmp_path / "p"))
    x = (np.arange(count) % 5).astype(kind)
    y = program.run({"x": x})["y"]
    assert y.dtype == kind
    np.testing.assert_array_equal(y.view(np.uint8), x.view(np.uint8))


def test_two_threads_with_two_instances_give_the_same_bits(demo: Program) -> None:
    rng = np.random.default_rng(0)
    steps = rng.standard_normal((200, 1, 8), np.float32)

    def play(_: int) -> bytes:
        instance = demo.instance()
        return b"".join(instance.run({"x:0": x})["y:0"].tobytes() for x in steps)

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(play, range(2))
    assert one == two == play(0)


def test_run_of_one_program_in_many_threads(demo: Program) -> None:
    def play(n: int) -> bool:
        return all((demo.run({"x:0": X * n})["y:0"] == X * n * WEIGHTS).all() for _ in range(200))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(play, range(1, 9)))


def test_one_instance_in_two_threads_is_refused(tmp_path: Path, build_native: Build) -> None:
    slow = handmade.waits("slow")
    program = open_program(build_native(slow, tmp_path / "slow"))
    flag, y = np.zeros(1, np.int32), np.zeros(1, np.int32)
    instance = program.instance()
    call = instance.bind({"flag": flag}, {"y": y})
    thread = threading.Thread(target=call)
    thread.start()
    try:
        while not y[0]:  # until the other thread is inside
            pass
        with pytest.raises(RuntimeError, match="another thread"):
            call()
        with pytest.raises(RuntimeError, match="another thread"):
            instance.reset()
        with pytest.raises(RuntimeError, match="another thread"):
            instance.run({"flag": np.ones(1, np.int32)})
    finally:
        flag[0] = 1
        thread.join()
    call()


def test_a_replaced_artifact_is_loaded_anew(tmp_path: Path, build_native: Build) -> None:
    old = open_program(build_native(handmade.running_sum(), tmp_path / "p"))
    new = open_program(build_native(handmade.running_sum(scale=3), tmp_path / "p"))
    np.testing.assert_array_equal(new.run({"x:0": X})["y:0"], 3 * X * WEIGHTS)
    np.testing.assert_array_equal(old.run({"x:0": X})["y:0"], X * WEIGHTS)


def test_a_temporary_artifact_goes_away(build_native: Build) -> None:
    program = open_temporary(build_native(handmade.running_sum(), None))
    path, instance = program.path, program.instance()
    program.run({"x:0": X})
    assert path.is_dir()
    del program
    gc.collect()
    assert not path.exists()
    np.testing.assert_array_equal(instance.run({"x:0": X})["y:0"], X * WEIGHTS)


def test_many_programs_leave_no_mappings(demo_path: Path) -> None:
    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count("demo")

    if not Path("/proc/self/maps").exists():
        pytest.skip("needs /proc")
    gc.collect()
    before = mapped()
    programs = [open_program(demo_path) for _ in range(3)]
    assert mapped() > before
    del programs
    gc.collect()
    assert mapped() == before


@pytest.mark.parametrize("file", ["demo.c", "demo.h", "demo.weights", "libdemo.so", "demo_weights.S"])
def test_a_changed_file_is_named(file: str, demo_path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(demo_path, tmp_path / "copy"))
    data = bytearray((copy / file).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / file).write_bytes(data)
    with pytest.raises(InvalidModel, match=f"{file} was changed"):
        open_program(copy)
    (copy / file).unlink()
    with pytest.raises(InvalidModel, match=f"{file} is missing"):
        open_program(copy)


def test_a_changed_manifest_is_found(demo_path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(demo_path, tmp_path / "copy"))
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "state_bytes": 1}))
    with pytest.raises(InvalidModel, match=r"manifest\.json was changed"):
        open_program(copy)
    (copy / "manifest.json").write_text(json.dumps({**manifest, "schema": 99}))
    with pytest.raises(InvalidModel, match="schema 99"):
        open_program(copy)
    for junk in ("", "[]", "{", "null", "\x00" * 9, "[" * 100_000):
        (copy / "manifest.json").write_text(junk)
        with pytest.raises(InvalidModel, match=r"manifest\.json"):
            open_program(copy)
    (copy / "manifest.json").unlink()
    with pytest.raises(InvalidModel, match=r"no artifact: it has no manifest\.json"):
        open_program(copy)


def test_what_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="not found"):
        open_program(tmp_path / "nowhere")
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(InvalidModel, match="no folder"):
        open_program(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["files"].update({"../evil": "0"}), "no file of this artifact"),
        (lambda m: m.update(library="../evil.so"), "no file of this artifact"),
        (lambda m: m.update(align=-1), "'align' is negative"),
        (lambda m: m.update(macs="many"), "'macs' should be int, not str"),
        (lambda m: m.update(target={}), "'target' should state"),
        (lambda m: m.update(inputs=[{"nome": "x"}]), "'inputs' is malformed"),
        (lambda m: m["inputs"][0].update(dtype="floaty"), "no NumPy dtype is called 'floaty'"),
        (lambda m: m["inputs"][0].update(shape=[1, 9]), "should take 36 bytes"),
        (lambda m: m.update(state_bytes=8), "state_bytes 32, its manifest says 8"),
        (lambda m: m.update(weight_bytes=8), "32 bytes, its manifest says 8"),
        (lambda m: m.update(name="other"), "no function other_state_bytes"),
    ],
)
def test_a_forged_manifest_is_refused(change: object, message: str, demo_path: Path, tmp_path: Path) -> None:
    from headrace.artifact.manifest import _digest

    copy = Path(shutil.copytree(demo_path, tmp_path / "copy"))
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["digest"]
    change(manifest)  # type: ignore[operator]
    (copy / "manifest.json").write_text(json.dumps({**manifest, "digest": _digest(manifest)}))
    with pytest.raises(InvalidModel, match=message):
        open_program(copy)


def test_a_program_for_another_processor_opens_but_does_not_run(
    demo_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headrace.targets import registry

    monkeypatch.setattr(registry, "host_arch", lambda: "sparc")
    program = open_program(demo_path)
    assert program.info.macs == 8
    with pytest.raises(TargetError, match="needs a machine with "):
        program.run({"x:0": X})


def test_calls_are_cheap(demo: Program) -> None:
    """Budgets are 0.5 and 4 µs on an idle machine; twice that leaves room for a busy one."""
    instance, inputs = demo.instance(), {"x:0": X}
    call = instance.bind(inputs, {"y:0": np.empty_like(X)})

    def best(function: object) -> float:
        return min(timeit.repeat(function, number=2000, repeat=15)) / 2000 * 1e6  # type: ignore[call-overload]

    assert best(call) < 1.0
    assert best(lambda: demo.run(inputs)) < 8.0


def test_unknown_outputs_are_named(demo: Program, rows: Program) -> None:
    with pytest.raises(ValueError, match="unknown output 'z'"):
        demo.instance().run({"x:0": X}, out={"z": X})
    y = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match="unknown output 'z'; expected 'y'"):
        rows.instance().run({"x": y.copy()}, out={"y": y, "z": y})
