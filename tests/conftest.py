"""For all tests."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# A busy machine may stop a test for longer than Hypothesis allows an example (200 ms): that is no failure of the code.
# Where time is the point, the test has a bound of its own.
# The same examples every time: what a change breaks is told from what chance finds. With HYPOTHESIS_PROFILE set
# (explore, or long for the state machines) they are new ones, to find what nobody has thought of.
settings.register_profile(
    "any-machine",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=not os.environ.get("HYPOTHESIS_PROFILE"),
)
settings.load_profile("any-machine")
