"""What all tests share: properties are not timed, since the machine may be busy."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Where CI is set, Hypothesis has its own profile loaded, which also draws the same every time.
if "CI" not in os.environ:
    settings.load_profile("busy")
