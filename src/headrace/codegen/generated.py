"""What code generation hands to the artifact stage: C text, weights, and the facts about both."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Port:
    """One input, output or state of a program.

    dtype is a NumPy dtype name ("float32", "int8", "bool", "bfloat16", …); shape holds ints, or
    strings naming an entry of `Generated.symbols`. c_field is the member of NAME_inputs/NAME_outputs.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    c_field: str
    offset: int = 0  # bytes from the start of the portable state (states only)
    nbytes: int = 0  # size at the bound of every symbol


@dataclass(frozen=True)
class Symbol:
    """A run-time extent: member `c_field` (int64_t) of NAME_inputs; 1 ≤ value ≤ bound, value % divisor == 0."""

    name: str
    c_field: str
    bound: int
    divisor: int = 1


@dataclass(frozen=True)
class KernelInfo:
    """One generated C function: which graph nodes it computes and how much work that is.

    weight_bytes, io_bytes: sizes of the arrays that it is given. operations: multiply-adds and all other
    arithmetic on data; functions: exp, tanh and their like among them; constant_bytes, read_bytes,
    written_bytes: what it touches, each byte once; cycles: what the cost model expects, by cause.
    """

    name: str
    nodes: tuple[str, ...]
    macs: int
    flops: int
    weight_bytes: int
    io_bytes: int
    schedule: tuple[str, ...] = ()
    operations: int = 0
    functions: int = 0
    constant_bytes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    cycles: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Generated:
    """C source of one program (INTERFACE.md, section C) and the sizes a caller must provide."""

    name: str  # C identifier; every exported symbol starts with it
    source: str  # text of NAME.c: compiles alone with -std=c11 -O3
    header: str  # text of NAME.h
    weights: bytes  # contents of NAME.weights; must be mapped at an address aligned to `align`
    align: int
    state_bytes: int
    scratch_bytes: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    states: tuple[Port, ...] = ()  # in portable order; what NAME_get_state writes
    symbols: tuple[Symbol, ...] = ()
    kernels: tuple[KernelInfo, ...] = ()
    macs: int = 0
    scratch_lower_bound: int = 0  # no plan can need less than this
    facts: dict[str, object] = field(default_factory=dict)  # anything else worth showing in Program.info
