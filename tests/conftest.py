"""What all tests share: how hypothesis works on machines of any speed."""

from __future__ import annotations

from hypothesis import settings

# No test asserts how long something takes; a busy machine must not fail one.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
