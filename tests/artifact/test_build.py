from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headrace.artifact.build import Source, build
from headrace.artifact.elf import code_bytes, undefined_symbols
from headrace.artifact.manifest import plain, read_manifest, sha256_file
from headrace.artifact.program import open_program
from headrace.errors import InvalidModel, ToolchainError
from headrace.targets.registry import TARGETS, get_target
from headrace.targets.toolchain import find_toolchain, find_toolchains
from tests.artifact import handmade
from tests.artifact.conftest import Build

KINDS = [t.kind for t in find_toolchains()]


def files(folder: Path) -> dict[str, str]:
    return {p.name: sha256_file(p) for p in sorted(folder.iterdir())}


def test_an_artifact_holds_what_the_manifest_says(demo_path: Path) -> None:
    assert set(files(demo_path)) == {
        "demo.c", "demo.h", "demo.weights", "demo_weights.S", "demo_bridge.c", "libdemo.so", "manifest.json",
    }  # fmt: skip
    manifest = json.loads((demo_path / "manifest.json").read_text())
    assert manifest["files"] == {n: h for n, h in files(demo_path).items() if n != "manifest.json"}
    assert manifest["code_bytes"] > 100
    assert manifest["weight_bytes"] == 32


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_input_gives_the_same_bytes(kind: str, tmp_path: Path, build_native: Build) -> None:
    a = build_native(handmade.running_sum(), tmp_path / "a", kind, shapes={"x": (1, 8)})
    b = build_native(handmade.running_sum(), tmp_path / "elsewhere" / "deep" / "b", kind, shapes={"x": [1, 8]})
    assert files(a) == files(b)
    assert str(tmp_path).encode() not in b"".join(p.read_bytes() for p in a.iterdir())


def test_options_and_toolchain_are_told_apart(tmp_path: Path, build_native: Build, demo_path: Path) -> None:
    other = build_native(handmade.running_sum(), tmp_path / "a", constants={"sr": np.int64(16000)})
    assert read_manifest(other).options == {"constants": {"sr": 16000}}
    assert files(other)["manifest.json"] != files(demo_path)["manifest.json"]
    assert files(other)["libdemo.so"] == files(demo_path)["libdemo.so"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_compiler_here_gives_the_same_answer(kind: str, build_native: Build, tmp_path: Path) -> None:
    program = open_program(build_native(handmade.running_sum(), tmp_path / "p", kind))
    x = np.arange(8, dtype=np.float32)[None]
    np.testing.assert_array_equal(program.run({"x:0": x})["y:0"], x * handmade.WEIGHTS)
    assert program.info.toolchain.startswith(kind)


@pytest.mark.skipif("zig" not in KINDS, reason="only zig compiles for other processors")
def test_an_artifact_for_another_processor_is_built(tmp_path: Path) -> None:
    target = TARGETS["aarch64"]
    zig = find_toolchain("zig", "aarch64-linux-gnu")
    path = build(handmade.running_sum(), target, zig, tmp_path / "arm", source=Source("demo", "0" * 64))
    assert (path / "libdemo.so").read_bytes()[18:20] == b"\xb7\x00"  # e_machine: AArch64
    assert read_manifest(path).target["name"] == "aarch64"


def test_source_and_bridge_are_free_of_warnings(demo_path: Path) -> None:
    for file in ("demo.c", "demo_bridge.c"):
        strict = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic"]
        subprocess.run(["cc", *strict, "-c", file, "-o", "/dev/null"], cwd=demo_path, check=True)


def test_the_header_is_cpp(demo_path: Path, tmp_path: Path) -> None:
    (tmp_path / "use.cpp").write_text('#include "demo.h"\nint main() { return demo_state_bytes() != 32; }\n')
    strict = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{demo_path}"]
    subprocess.run(["c++", *strict, str(tmp_path / "use.cpp")], check=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_c_program_links_the_weights(kind: str, demo_path: Path, tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text(
        '#include "demo.h"\n#include <stdio.h>\n#include <stdint.h>\nint main(void) {\n'
        "  static _Alignas(64) unsigned char state[32], scratch[32]; float x[8], y[8];\n"
        "  for (int i = 0; i < 8; i++) x[i] = 1;\n"
        "  demo_inputs in = {x}; demo_outputs out = {y};\n"
        "  if (demo_init(state, demo_weights)) return 1;\n"
        "  if (demo_run(state, scratch, demo_weights, &in, &out)) return 2;\n"
        '  printf("%g %g", (double)y[0], (double)y[7]); return 0;\n}\n'
    )
    command = find_toolchain(kind, get_target("native").triple).command
    sources = [str(tmp_path / "main.c"), str(demo_path / "demo.c"), str(demo_path / "demo_weights.S")]
    program = str(tmp_path / "main")
    subprocess.run([*command, "-std=c11", "-O2", f"-I{demo_path}", "-o", program, *sources], check=True)
    assert subprocess.run([program], capture_output=True, text=True, check=True).stdout == "1 8"


def test_heavy_weights_stay_out_of_the_sources(tmp_path: Path, build_native: Build) -> None:
    heavy = replace(handmade.running_sum(), weights=bytes(48 << 20))
    path = build_native(heavy, tmp_path / "heavy")
    assert sum(p.stat().st_size for p in path.iterdir() if p.suffix != ".weights") < 100_000
    assert not open_program(path).run({"x:0": np.ones((1, 8), np.float32)})["y:0"].any()


def test_a_compiler_error_names_its_line_and_leaves_nothing(tmp_path: Path, build_native: Build) -> None:
    broken = replace(handmade.running_sum(), source="int demo_run(void) { return nonsense; }\n")
    with pytest.raises(ToolchainError, match=r"demo\.c:1:.*nonsense"):
        build_native(broken, tmp_path / "new" / "demo")
    assert list(tmp_path.iterdir()) == []


def test_calls_beyond_libc_do_not_link(tmp_path: Path, build_native: Build) -> None:
    base = handmade.running_sum()
    text = base.source.replace(
        "return in->x[0]", "extern float tanhf(float); out->y[0] = tanhf(in->x[0]); return in->x[0]"
    )
    with pytest.raises(ToolchainError, match="tanhf"):
        build_native(replace(base, source=text), tmp_path / "demo", "gcc")


def test_calls_into_libc_are_refused(tmp_path: Path, build_native: Build) -> None:
    base = handmade.running_sum()
    text = "#include <stdlib.h>\n" + base.source.replace(
        "return in->x[0]", "*(void **)scratch = malloc(64); return in->x[0]"
    )
    with pytest.raises(ToolchainError, match="needs malloc"):
        build_native(replace(base, source=text), tmp_path / "demo")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_undefined_symbols_of_an_object(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text("int f(int); static int g; int h(void);\nint h(void) { return f(g++); }\n")
    command = find_toolchain(kind, get_target("native").triple).command
    subprocess.run([*command, "-O2", "-c", "a.c", "-o", "a.o"], cwd=tmp_path, check=True)
    assert undefined_symbols((tmp_path / "a.o").read_bytes()) == {"f"}


def test_contradicting_facts_are_refused(tmp_path: Path, build_native: Build) -> None:
    base = handmade.running_sum()
    wrong_size = replace(base, inputs=(replace(base.inputs[0], nbytes=31),))
    with pytest.raises(InvalidModel, match="should take 32 bytes"):
        build_native(wrong_size, tmp_path / "demo")
    with pytest.raises(InvalidModel, match=r"'T'.*no symbol"):
        build_native(replace(base, outputs=(replace(base.outputs[0], shape=("T", 8)),)), tmp_path / "demo")
    with pytest.raises(InvalidModel, match="appears in no input"):
        build_native(replace(base, symbols=handmade.doubled_rows().symbols), tmp_path / "demo")
    with pytest.raises(ValueError, match="power of two"):
        build_native(replace(base, align=48), tmp_path / "demo")


def test_code_bytes_of_something_else() -> None:
    assert code_bytes(b"MZ not elf") is None
    assert code_bytes(b"\x7fELF\x02\x01" + bytes(80) + b"\xff" * 20) is not None
    assert code_bytes(b"\x7fELF\x02\x01" + b"\xff" * 60) is None


def test_plain_values() -> None:
    value = {"a": (1, Path("x")), "b": np.float32(0.5), "c": np.array([1, 2], np.int8), "d": frozenset("ba")}
    assert plain(value) == {
        "a": [1, "x"],
        "b": 0.5,
        "c": {"dtype": "int8", "shape": [2], "values": [1, 2]},
        "d": ["a", "b"],
    }
    assert "sha256" in plain(np.zeros(2000))
    with pytest.raises(TypeError, match="object"):
        plain({"a": object()})
