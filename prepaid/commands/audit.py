"""`prepaid audit`: the laws, proven on the whole database."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import psycopg
import typer

from prepaid.clock import Clock
from prepaid.settings import Settings
from store.audit import Check
from store.audit import audit as audit_database
from store.errors import MigrationError, Unavailable
from store.operations import readiness

CONNECT_TIMEOUT_S = 5
DAY_MS = 24 * 3600 * 1000


def register(app: typer.Typer) -> None:
    app.command()(audit)


def audit(
    as_json: Annotated[bool, typer.Option("--json", help="The findings as JSON.")] = False,
) -> None:
    """Prove the laws on PREPAID_DATABASE__URL: sums, balances, intervals, tokens, commands.

    It only reads, and may run beside everything else. Exit status 1 if a law is broken.
    """
    settings = Settings()
    kept_from_ms = None
    if settings.keep_readings_days is not None:
        kept_from_ms = Clock.parse(settings.clock).now_ms() - settings.keep_readings_days * DAY_MS
    checks = _run(settings.database_url(), kept_from_ms)
    if as_json:
        sys.stdout.write(json.dumps(form(checks), ensure_ascii=False, indent=2) + "\n")
    else:
        sys.stdout.writelines(line + "\n" for line in lines(checks))
    if not all(check.passed for check in checks):
        raise typer.Exit(1)


def _run(url: str, kept_from_ms: int | None) -> tuple[Check, ...]:
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S) as conn:
            if readiness(conn).pending_migrations:
                raise MigrationError("the database is older than this version: run prepaid migrate")
            return audit_database(conn, _progress, kept_from_ms=kept_from_ms)
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise Unavailable(str(error).strip() or type(error).__name__) from error


def _progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def form(checks: Sequence[Check]) -> dict[str, object]:
    """The findings for programs."""
    passed = sum(check.passed for check in checks)
    return {
        "checks": [asdict(check) | {"passed": check.passed} for check in checks],
        "passed": passed,
        "failed": len(checks) - passed,
    }


def lines(checks: Sequence[Check]) -> list[str]:
    """One line per law, below it where it is broken; the last line counts the laws."""
    written = []
    for check in checks:
        verdict = "ok  " if check.passed else "FAIL"
        broken = "" if check.passed else f", {check.failed} broken"
        written.append(f"{verdict}  {check.name}: {check.checked} {check.things}{broken}")
        written += [
            f"      {each.where}: expected {each.expected}, found {each.found}"
            for each in check.failures
        ]
        if check.failed > len(check.failures):
            written.append(f"      and {check.failed - len(check.failures)} more")
    passed = sum(check.passed for check in checks)
    return [*written, f"{passed} passed, {len(checks) - passed} failed"]
