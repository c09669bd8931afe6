"""Size of the machine code in an ELF file."""

from __future__ import annotations

import struct

_EXECUTABLE = 0x4  # SHF_EXECINSTR


def code_bytes(data: bytes) -> int | None:
    """Bytes in the executable sections of an ELF file; None when `data` is no well-formed one."""
    if data[:4] != b"\x7fELF" or len(data) < 52 or data[5] != 1:
        return None
    try:
        return sum(size for flags, size in _sections(data, wide=data[4] == 2) if flags & _EXECUTABLE)
    except (struct.error, OverflowError):
        return None


def _sections(data: bytes, wide: bool) -> list[tuple[int, int]]:
    """Flags and size of every section."""
    if wide:
        (start,), (entry, count) = struct.unpack_from("<Q", data, 40), struct.unpack_from("<HH", data, 58)
        form, flags, size = "<IIQQQQ", 2, 5
    else:
        (start,), (entry, count) = struct.unpack_from("<I", data, 32), struct.unpack_from("<HH", data, 46)
        form, flags, size = "<IIIIII", 2, 5
    rows = [struct.unpack_from(form, data, start + i * entry) for i in range(count)]
    return [(row[flags], row[size]) for row in rows]
