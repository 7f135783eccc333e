"""What `prepaid doctor` says of certificates, revocations and the broker's access, in time."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from prepaid.runtime.mosquitto_files import SETTINGS, render_access_list
from prepaid.settings import Settings
from prepaid.trust.authority import (
    CA_FILE,
    CRL_FILE,
    certificate_end_ms,
    revocations_end_ms,
)
from schemas.quantities import format_instant
from schemas.topics import is_claim_name

DAY_MS = 24 * 3600 * 1000
# Time enough to renew by hand; a list of revocations is renewed by a timer, daily.
WARN_DAYS = 30
LIST_WARN_DAYS = 7
# What makes a broker ask who is there.
PROTECTED = ("allow_anonymous false",)


class Finding(NamedTuple):
    """`mend` says what to do and is empty where nothing is wrong."""

    name: str
    detail: str
    mend: str = ""


def examine(settings: Settings, now_ms: int, claims: Sequence[str] | None) -> list[Finding]:
    """Findings on the files that the settings name; `claims` in force, None without a database."""
    broker, trust = settings.broker, settings.trust
    certificates = [broker.ca, broker.certificate, broker.dispatch_certificate]
    lists: list[Path] = []
    if trust.ca is not None:
        certificates.append(trust.ca / CA_FILE)
        if (trust.ca / CRL_FILE).exists():
            lists.append(trust.ca / CRL_FILE)
    if broker.folder is not None and (broker.folder / "server.pem").exists():
        certificates.append(broker.folder / "server.pem")
        lists.append(broker.folder / "crl.pem")
    findings = [*_ends(filter(None, certificates), lists, now_ms)]
    if broker.folder is not None:
        findings.append(_access(broker.folder, claims))
    return findings


def _ends(certificates: Iterable[Path], lists: Iterable[Path], now_ms: int) -> Iterable[Finding]:
    renew = "Renew it: docs/broker.md, `prepaid certs renew` or `prepaid broker config`."
    for path in dict.fromkeys(certificates):
        yield _end("certificate", path, certificate_end_ms, now_ms, WARN_DAYS, renew)
    again = "Run `prepaid certs crl`, daily: a broker refuses all certificates without a list."
    for path in dict.fromkeys(lists):
        yield _end("revocations", path, revocations_end_ms, now_ms, LIST_WARN_DAYS, again)


def _end(
    name: str,
    path: Path,
    end_of: Callable[[bytes], int],
    now_ms: int,
    warn_days: int,
    mend: str,
) -> Finding:
    try:
        end_ms = end_of(path.read_bytes())
    except OSError as error:
        return Finding(
            name, f"{path}: {error.strerror}", "Name the file, readable by this account."
        )
    except ValueError:
        return Finding(name, f"{path} is not of this form", "Name a PEM file.")
    detail = f"{path} until {format_instant(end_ms)}"
    return Finding(name, detail, mend if end_ms - now_ms < warn_days * DAY_MS else "")


def _access(folder: Path, claims: Sequence[str] | None) -> Finding:
    """Whether the broker's access list and settings are still those that we write."""
    mend = "Run `prepaid broker config` on that folder again, and restart the broker."
    try:
        configuration = (folder / "mosquitto.conf").read_text("utf-8").splitlines()
        found = (folder / "access").read_text("utf-8")
    except OSError as error:
        return Finding("broker access", f"{error.filename}: {error.strerror}", mend)
    missing = [line for line in (*PROTECTED, *SETTINGS) if line not in configuration]
    if missing:
        return Finding("broker access", f"mosquitto.conf has no line {missing[0]!r}", mend)
    named = [
        user
        for line in found.splitlines()
        if line.startswith("user ") and is_claim_name(user := line.removeprefix("user "))
    ]
    if found != render_access_list(named):
        return Finding("broker access", "the access list is not the one that we write", mend)
    if claims is not None and set(named) != set(claims):
        return Finding(
            "broker access", "the access list names other claims than are in force", mend
        )
    return Finding("broker access", f"{folder}, {len(named)} claims")
