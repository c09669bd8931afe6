"""Programs on several threads: the bits of one thread, pools that start and stop, forks, many instances."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

import headrace as hr
from headrace.artifact.build import write_sources
from headrace.artifact.harness import run_sanitized
from headrace.errors import TargetError
from headrace.targets.registry import get_target
from headrace.targets.toolchain import find_toolchain, run_compiler
from headrace.verbs import check_threads, generate
from tests.artifact.stepmodels import model_of

THREADS = (1, 2, 3, 8)
MAIN = Path(__file__).with_name("threaded.c")


def network(rows: int = 96) -> Any:
    """Two products with a tanh between them; both large enough to be cut."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((256, 320)), "v": rng.standard_normal((320, 200))}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Tanh", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "v"], ["y"]),
    ]
    return model_of(nodes, {"x": [rows, 256]}, ["y"], {k: v.astype(np.float32) for k, v in weights.items()})


def given(rows: int = 96) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).standard_normal((rows, 256)).astype(np.float32)


@pytest.fixture(scope="module")
def programs() -> dict[int, hr.Program]:
    return {n: hr.compile(network(), threads=n) for n in THREADS}


def test_the_same_bits(programs: dict[int, hr.Program]) -> None:
    x = given()
    wanted = programs[1].run({"x": x})["y"]
    for n in THREADS[1:]:
        assert programs[n].run({"x": x})["y"].tobytes() == wanted.tobytes()
        y = np.empty_like(wanted)
        call = programs[n].instance().bind({"x": x}, {"y": y})
        call()
        assert y.tobytes() == wanted.tobytes()
        cut = [s for k in programs[n].info.kernels for s in k.schedule if "Parallel(" in s]
        assert len(cut) == 2


def test_one_thread_has_no_pool(programs: dict[int, hr.Program]) -> None:
    plain, threaded = (set(programs[n].info.manifest["files"]) for n in (1, 2))
    assert threaded - plain == {"small_pool.c", "small_pool.h"}
    assert "threads" not in (programs[1].path / "small.h").read_text()


def test_many_instances_in_many_threads(programs: dict[int, hr.Program]) -> None:
    program, x = programs[3], given()
    wanted, wrong = programs[1].run({"x": x})["y"], []

    def work() -> None:
        for _ in range(20):
            if program.run({"x": x})["y"].tobytes() != wanted.tobytes():
                wrong.append(1)

    users = [threading.Thread(target=work) for _ in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert not wrong


END = """
import gc, os, sys, numpy as np, headrace as hr
def tasks():
    return len(os.listdir("/proc/self/task"))
x = np.ones((96, 256), np.float32)
before = tasks()
program = hr.open(sys.argv[1])
assert tasks() == before, "threads start with the first instance"
instance = program.instance()
assert tasks() == before + 2
del program
instance.run({"x": x})
del instance
gc.collect()
assert tasks() == before
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_threads_end_with_the_program(programs: dict[int, hr.Program]) -> None:
    run_script(END, programs[3])


FORK = """
import os, sys, numpy as np, headrace as hr
program, x = hr.open(sys.argv[1]), np.ones((96, 256), np.float32)
instance = program.instance()
wanted = instance.run({"x": x})["y"].tobytes()
child = os.fork()
if child == 0:
    same = instance.run({"x": x})["y"].tobytes() == wanted
    fresh = program.instance()
    same = same and fresh.run({"x": x})["y"].tobytes() == wanted
    os._exit(0 if same else 1)
assert os.waitpid(child, 0)[1] == 0
assert instance.run({"x": x})["y"].tobytes() == wanted
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork here")
def test_a_child_of_fork_computes_the_same(programs: dict[int, hr.Program]) -> None:
    run_script(FORK, programs[3])


def run_script(text: str, program: hr.Program) -> None:
    command = [sys.executable, "-c", text, str(program.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_a_stream_flushes_denormals_in_every_thread() -> None:
    """Frames of denormal numbers, and of numbers whose products are denormal."""
    rng = np.random.default_rng(0)
    weights = {"w": (rng.standard_normal((512, 256, 3)) * 1e-20).astype(np.float32)}
    model = model_of([helper.make_node("Conv", ["x", "w"], ["y"])], {"x": [1, 256, "T"]}, ["y"], weights)
    x = (rng.standard_normal((1, 256, 96)) * 1e-19).astype(np.float32)
    step = hr.stream(model, axes={"x": 2}, chunk=32)
    results = []
    for threads in (1, 3):
        program = hr.compile(step, threads=threads)
        assert ("Parallel" in str(program.info.kernels)) == (threads > 1)
        results.append(program.stream().push({"x": x})["y"].tobytes())
    assert results[0] == results[1]


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_c_programs_under_sanitizers(sanitizer: str, tmp_path: Path) -> None:
    """An own parallel_for on another thread, also with another rounding; pools; several threads at one pool; fork."""
    target = get_target("native")
    compiler = find_toolchain("gcc", target.triple)
    made = generate(hr.load(network()), "net", target, shapes={}, bounds={}, constants={}, state={}, threads=4)
    write_sources(tmp_path, made)
    (tmp_path / "main.c").write_text(MAIN.read_text(encoding="utf-8"), encoding="utf-8")
    x = given()
    sizes = [f"-DINPUT={x.nbytes}", f"-DOUTPUT={96 * 200 * 4}", f"-DWEIGHTS={len(made.weights)}"]
    flags = ("-std=c11", "-O1", "-g", "-ffp-contract=off", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all")
    strict = ("-Wall", "-Wextra", "-Werror", "-pthread")
    sources = ("net.c", "net_pool.c", "main.c", "-lm")
    run_compiler(compiler, (*flags, *strict, *sizes, "-o", "program", *sources), tmp_path)
    command = ["./program"] if sanitizer == "thread" else ["./program", "fork"]
    done = subprocess.run(command, input=x.tobytes(), capture_output=True, cwd=tmp_path, timeout=120, check=False)
    if b"unexpected memory mapping" in done.stderr:
        pytest.skip("the thread sanitizer does not run on this kernel")
    assert done.returncode == 0, done.stderr.decode(errors="replace")


def test_the_harness_runs_threaded_programs_on_one() -> None:
    target, x = get_target("native"), given()
    made = generate(hr.load(network()), "net", target, shapes={}, bounds={}, constants={}, state={}, threads=2)
    (got,) = run_sanitized(made, find_toolchain("gcc", target.triple), [{"x": x}])
    np.testing.assert_allclose(got["y"], hr.compile(network()).run({"x": x})["y"], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("threads", [0, -1, 65, 2.0, True, "2", None])
def test_what_is_no_number_of_threads(threads: Any) -> None:
    with pytest.raises(ValueError, match="threads="):
        hr.compile(network(), threads=threads)


def test_targets_without_posix_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.targets.registry.host_triple", lambda: "x86_64-windows-gnu")
    monkeypatch.setattr("headrace.targets.registry.host_arch", lambda: "x86_64")
    check_threads(1, get_target("x86-64"))
    with pytest.raises(TargetError, match="threads=2"):
        check_threads(2, get_target("x86-64"))
