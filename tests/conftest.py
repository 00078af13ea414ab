"""For all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A busy machine may stop a test for longer than Hypothesis allows an example (200 ms): that is no failure of the code.
# Where time is the point, the test has a bound of its own.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")
