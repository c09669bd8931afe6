"""Settings for every test: reproducible randomness, for NumPy and for hypothesis."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

_SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile(
    "default", deadline=None, derandomize=True, max_examples=50, suppress_health_check=_SLOW_IS_FINE
)
settings.register_profile("fuzz", deadline=None, max_examples=2000, suppress_health_check=_SLOW_IS_FINE)
settings.load_profile("default")


@pytest.fixture
def rng() -> np.random.Generator:
    """The same numbers in every run of a test."""
    return np.random.default_rng(0)
