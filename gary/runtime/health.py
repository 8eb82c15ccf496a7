"""What a row of health checks means, as container engines count it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gary.runtime.base import Health
from gary.spec import Healthcheck


@dataclass(frozen=True, slots=True)
class Findings:
    """The state so far. ``failures``: in a row, without those in the start period."""

    health: Health = Health.STARTING
    failures: int = 0


def is_checked(check: Healthcheck | None) -> bool:
    """Whether there is anything to run."""
    return check is not None and bool(check.test) and check.test[0] != "NONE"


def after(findings: Findings, check: Healthcheck, passed: bool, age_s: float) -> Findings:
    """Take in one more check of a container that started ``age_s`` ago.

    One that passes makes it healthy at once and ends the start period; ``retries`` failures in a row make it unhealthy;
    failures in the start period do not count.
    """
    if passed:
        return Findings(Health.HEALTHY)
    if findings.health is Health.STARTING and age_s < check.start_period_s:
        return findings
    failures = findings.failures + 1
    return replace(
        findings,
        failures=failures,
        health=Health.UNHEALTHY if failures >= max(1, check.retries) else findings.health,
    )


def pause_s(findings: Findings, check: Healthcheck, age_s: float) -> float:
    """How long to wait before the next check."""
    starting = findings.health is Health.STARTING and age_s < check.start_period_s
    interval = check.start_interval_s if starting and check.start_interval_s else check.interval_s
    return interval or Healthcheck().interval_s
