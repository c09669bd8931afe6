"""The threads of a program in this process: a pool in C, started with the first instance."""

from __future__ import annotations

import ctypes
import os
import threading
from dataclasses import dataclass, field
from typing import Any

ALIGN = 64


@dataclass
class Pools:
    """Pools of one loaded library: one for the process, and one more in each child by fork() that needs it.

    symbol: a function of the library by name. threads: the most that work on one kernel, 1 for none.
    """

    name: str
    threads: int
    symbol: Any
    memory: list[Any] = field(default_factory=list)  # of pools whose address instances may hold
    process: int = 0
    address: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def running(self) -> int:
        """Address of the NAME_threads of this process; 0 for a program of one thread."""
        if self.threads == 1:
            return 0
        with self.lock:
            if self.process != os.getpid():
                self._start()
            return self.address

    def _start(self) -> None:
        size = self.symbol(f"{self.name}_pool_bytes")
        size.restype = ctypes.c_size_t
        memory = ctypes.create_string_buffer(size() + ALIGN)
        start = ctypes.addressof(memory)
        self.memory.append(memory)
        self.address, self.process = start + -start % ALIGN, os.getpid()
        self.symbol(f"{self.name}_pool_start")(ctypes.c_void_p(self.address), self.threads)

    def stop(self) -> None:
        """End the threads of this process, before the library is unloaded."""
        if self.process == os.getpid():
            self.symbol(f"{self.name}_pool_stop")(ctypes.c_void_p(self.address))
            self.process = 0
