"""What holds for all tests."""

from hypothesis import settings

# Hypothesis' own limit for an example, 0.2 s, would fail tests on a busy machine; pytest bounds hangs.
settings.register_profile("gateway", deadline=None)
settings.load_profile("gateway")
