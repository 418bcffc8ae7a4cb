"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "medvae", deadline=None, max_examples=25, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("medvae")

SHARED = Path(os.environ.get("MEDVAE_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real scans beside the checkout; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(
            f"needs the real scans of {SHARED.parent.name}/{SHARED.name} beside the checkout (or MEDVAE_SHARED_DATA)"
        )
    return SHARED
