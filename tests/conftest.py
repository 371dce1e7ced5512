"""What holds for all tests: time is never asserted, so that no property fails on a busy machine for being slow."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
