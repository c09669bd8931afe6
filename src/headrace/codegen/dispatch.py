"""One program for several instruction sets: every one an entry, and NAME_run takes the widest that runs here."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.codegen.section import own_name
from headrace.targets.cpuid import ask_functions, level_function
from headrace.targets.simd import Isa

_PARAMETERS = "void *state, void *scratch, const void *weights, const {0}_inputs *in,\n    const {0}_outputs *out"
_ARGUMENTS = "state, scratch, weights, in, out"


def entry_names(isas: Sequence[Isa], entry: str = "run") -> list[str]:
    """run_x86_64, run_avx2, …"""
    return [f"{entry}_{own_name(isa)}" for isa in isas]


def declarations(name: str, isas: Sequence[Isa]) -> list[str]:
    """Lines of NAME.h."""
    entries = [f"int {name}_{entry}({_PARAMETERS.format(name)});" for entry in entry_names(isas)]
    return [
        f"/* {name}_run is one of the entries below, the last that this processor runs; {name}_isa names it.",
        " * Each gives the same bits as a program compiled for that instruction set alone. Calling one that the",
        " * processor lacks is an illegal instruction. */",
        f"const char *{name}_isa(void);",
        *"\n".join(entries).split("\n"),
    ]  # fmt: skip


def isa_function(name: str, isas: Sequence[Isa]) -> str:
    """C text of NAME_level and NAME_isa."""
    names = ", ".join(f'"{isa.name}"' for isa in isas)
    return f"""\
{ask_functions(name)}

{level_function(name, isas)}

const char *{name}_isa(void)
{{
    static const char *const names[] = {{{names}}};
    return names[{name}_level()];
}}"""


def entry_function(name: str, isas: Sequence[Isa], entry: str = "run", linkage: str = "") -> str:
    """C text of NAME_run, or of another entry: a call of that of the widest instruction set that runs here."""
    names = entry_names(isas, entry)
    cases = [f"    case {n}: return {name}_{names[n]}({_ARGUMENTS});" for n in range(len(isas) - 1, 0, -1)]
    return "\n".join([
        f"{linkage}int {name}_{entry}({_PARAMETERS.format(name)})",
        "{",
        f"    switch ({name}_level()) {{",
        *cases,
        f"    default: return {name}_{names[0]}({_ARGUMENTS});",
        "    }",
        "}",
    ])  # fmt: skip
