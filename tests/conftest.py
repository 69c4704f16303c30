"""What holds for every test: generated cases are judged by what they show, never by how fast the machine was."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("fedpriv", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fedpriv")
