"""Results of a module against those of the interpreter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def assert_close(got: Mapping[str, Array], wanted: Mapping[str, Array], ulps: float = 64, what: str = "") -> None:
    """Equal integers; floats within `ulps` of the largest finite magnitude, NaN and infinities in the same places."""
    for name, want in wanted.items():
        have = got[name]
        assert have.dtype == want.dtype and have.shape == want.shape, f"{what}{name}"
        if want.dtype.kind in "iub":
            np.testing.assert_array_equal(have, want, err_msg=f"{what}{name}")
            continue
        a, b = have.astype(np.float64), want.astype(np.float64)
        eps = {2: 2.0**-8, 4: 2.0**-23, 8: 2.0**-52}[want.dtype.itemsize]
        finite = np.isfinite(b)
        scale = np.abs(b[finite]).max() if finite.any() else 0.0
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b), err_msg=f"{what}{name}: NaN")
        np.testing.assert_array_equal(np.where(finite, 0, b), np.where(finite, 0, a), err_msg=f"{what}{name}: inf")
        worst = np.abs(a - b)[finite].max() if finite.any() else 0.0
        assert worst <= ulps * eps * max(scale, 1e-30), f"{what}{name}: {worst} of {scale}"
