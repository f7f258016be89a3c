"""A pytest plugin: a failing example is enough, hypothesis need not look for the smallest one."""

from __future__ import annotations

import pytest
from hypothesis import Phase, settings


def pytest_collection(session: pytest.Session) -> None:
    """After conftest.py has chosen its profile, and before tests take over what holds."""
    phases = (Phase.explicit, Phase.reuse, Phase.generate)
    settings.register_profile("unshrunk", settings.default, phases=phases)
    settings.load_profile("unshrunk")
