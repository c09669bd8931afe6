"""What a tensor at the edge of a model or program looks like."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TensorSpec:
    """Element type (NumPy name) and shape of an input or output.

    Unknown dims are strings. The shape ("...",) stands for an unknown rank.
    """

    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.dtype} [{', '.join(map(str, self.shape))}]"
