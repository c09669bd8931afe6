"""What an ELF file holds: the size of its machine code and the functions it takes from elsewhere."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_EXECUTABLE = 0x4  # SHF_EXECINSTR
_SYMBOL_TABLES = (2, 11)  # SHT_SYMTAB, SHT_DYNSYM
_WEAK = 2  # STB_WEAK: what start-up files of compilers leave open


@dataclass(frozen=True)
class _Section:
    kind: int
    flags: int
    offset: int
    size: int
    link: int


def code_bytes(data: bytes) -> int | None:
    """Bytes in the executable sections of an ELF file; None when `data` is no well-formed one."""
    sections = _sections(data)
    return None if sections is None else sum(s.size for s in sections if s.flags & _EXECUTABLE)


def undefined_symbols(data: bytes) -> frozenset[str] | None:
    """Names that an ELF object or library needs from elsewhere; None when `data` is no well-formed one."""
    sections = _sections(data)
    if sections is None:
        return None
    names: set[str] = set()
    try:
        for table in sections:
            if table.kind in _SYMBOL_TABLES:
                names.update(_undefined(data, table, sections[table.link]))
    except (struct.error, IndexError, ValueError):
        return None
    return frozenset(names)


def _undefined(data: bytes, table: _Section, strings: _Section) -> list[str]:
    wide = data[4] == 2
    form, size = ("<IBBHQQ", 24) if wide else ("<IIIBBH", 16)
    found = []
    for start in range(table.offset + size, table.offset + table.size, size):  # the first entry is empty
        row = struct.unpack_from(form, data, start)
        name, info, section = (row[0], row[1], row[3]) if wide else (row[0], row[3], row[5])
        if section == 0 and info >> 4 != _WEAK:
            begin = strings.offset + name
            text = data[begin : data.index(b"\0", begin)].decode("utf-8", "replace")
            found.append(text.partition("@")[0])  # without the version: memcpy@GLIBC_2.14
    return found


def _sections(data: bytes) -> list[_Section] | None:
    if data[:4] != b"\x7fELF" or len(data) < 64 or data[5] != 1:
        return None
    wide = data[4] == 2
    form, start_form, at, counts = ("<IIQQQQI", "<Q", 40, 58) if wide else ("<IIIIIII", "<I", 32, 46)
    try:
        (start,) = struct.unpack_from(start_form, data, at)
        entry, count = struct.unpack_from("<HH", data, counts)
        rows = [struct.unpack_from(form, data, start + i * entry) for i in range(count)]
    except (struct.error, OverflowError):
        return None
    return [_Section(row[1], row[2], row[4], row[5], row[6]) for row in rows]
