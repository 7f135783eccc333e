"""Certificates, enrolment, verification keys, and what was refused to strangers.

The database records what the authority signed and what was revoked; the broker's list is made from
it. One name has at most one certificate in force that was enrolled or issued; a renewal overlaps.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from psycopg import Connection

from schemas.errors import DomainError
from store.errors import Conflict, NotFound
from store.sql import query

ENROLMENT_REASON = "enrolled again"
# A device's own name for itself is a stranger's text.
NAME_LENGTH = 64
DETAIL_LENGTH = 200


class NewCertificate(NamedTuple):
    """What the authority signed; instants in UTC ms."""

    serial: str
    role: str
    name: str
    pem: str
    public_key: bytes
    not_before_ms: int
    not_after_ms: int


class Certificate(NamedTuple):
    """A recorded certificate. `issued_by` is a person, or the claim that asked for it."""

    serial: str
    role: str
    name: str
    pem: str
    public_key: bytes
    not_before_ms: int
    not_after_ms: int
    issued_by: str
    revoked_ms: int | None
    revoked_by: str | None
    revocation_reason: str | None


class RefusalCount(NamedTuple):
    """How often something was refused to a device on one day (UTC)."""

    day: str
    device: str
    reason: str
    times: int
    last_ms: int
    last_detail: str


class Refused(NamedTuple):
    """One kind of refusal to be counted."""

    device: str
    reason: str
    times: int
    detail: str


class Enrolled(NamedTuple):
    """The answer to an enrolment; `revoked` says that the list of revocations has grown."""

    pem: str
    revoked: bool


def issue(
    conn: Connection,
    role: str,
    name: str,
    sign: Callable[[], NewCertificate],
    by: str,
    now_ms: int,
    *,
    renewal: bool = False,
) -> NewCertificate:
    """Sign and record a certificate.

    Errors: NotFound: no such meter or gateway is registered; Conflict `already_issued`, unless it
    is a renewal; Conflict `not_issued`: nothing to renew.
    """
    with conn.transaction():
        conn.execute(query("lock_names"), {"name": name})
        _registered(conn, role, name)
        held = in_force(conn, name, now_ms)
        if held and not renewal:
            raise Conflict("already_issued", f"{name} has a certificate: renew or revoke it.")
        if renewal and not held:
            raise Conflict("not_issued", f"{name} has no certificate in force: issue one.")
        return _record(conn, sign(), by, now_ms)


def enrol(
    conn: Connection,
    meter: str,
    claim: str,
    public_key: bytes,
    sign: Callable[[], NewCertificate],
    now_ms: int,
) -> Enrolled:
    """The certificate of a meter that asks under a claim certificate, in one transaction.

    A repeat with the same key gets the same answer. Errors: DomainError `unknown_claim`;
    NotFound: the meter is not registered; Conflict `already_enrolled`: another key is in force and
    no operator has allowed another enrolment.
    """
    with conn.transaction():
        conn.execute(query("lock_names"), {"name": meter})
        if not any(each.role == "claim" for each in in_force(conn, claim, now_ms)):
            raise DomainError("unknown_claim", "Ask under a claim certificate that is in force.")
        meter_id = _registered(conn, "meter", meter)
        held = in_force(conn, meter, now_ms)
        for each in held:
            if each.public_key == public_key:
                return Enrolled(each.pem, revoked=False)
        if held:
            allowed = conn.execute(
                query("use_reenrolment"), {"meter": meter_id, "now_ms": now_ms}
            ).fetchone()
            if allowed is None:
                raise Conflict(
                    "already_enrolled",
                    f"Meter {meter} has a certificate: an operator must allow another enrolment.",
                )
            revoke(conn, meter, by=claim, reason=ENROLMENT_REASON, now_ms=now_ms)
        return Enrolled(_record(conn, sign(), claim, now_ms).pem, revoked=bool(held))


def allow_reenrolment(conn: Connection, meter: str, by: str, reason: str, now_ms: int) -> None:
    """Let a meter enrol once more. Errors: NotFound."""
    of = {"meter": _registered(conn, "meter", meter), "by": by, "reason": reason}
    conn.execute(query("allow_reenrolment"), of | {"now_ms": now_ms})


def revoke(
    conn: Connection, name: str, by: str, reason: str, now_ms: int, serial: str | None = None
) -> Sequence[str]:
    """End all certificates of a name, or one of them; returns their serials. Errors: NotFound."""
    of = {"name": name, "by": by, "reason": reason, "now_ms": now_ms, "serial": serial}
    serials = [row[0] for row in conn.execute(query("revoke_certificates"), of)]
    if not serials:
        raise NotFound(f"A certificate of {name} that is in force")
    return serials


def certificates(conn: Connection, name: str | None = None) -> Sequence[Certificate]:
    """All that were ever signed, newest first."""
    rows = conn.execute(query("list_certificates"), {"name": name}).fetchall()
    return [Certificate(*row) for row in rows]


def in_force(conn: Connection, name: str, now_ms: int) -> Sequence[Certificate]:
    """Those of a name that are neither revoked nor over, newest first."""
    of = {"name": name, "now_ms": now_ms}
    rows = conn.execute(query("certificates_in_force"), of).fetchall()
    return [Certificate(*row) for row in rows]


def ending(conn: Connection, now_ms: int, until_ms: int) -> int:
    """How many certificates in force end until then and have no successor."""
    row = conn.execute(
        query("ending_certificates"), {"now_ms": now_ms, "until_ms": until_ms}
    ).fetchone()
    return 0 if row is None else int(row[0])


def claims(conn: Connection, now_ms: int) -> Sequence[str]:
    """Names of the claim certificates in force."""
    return [name for (name,) in conn.execute(query("claims_in_force"), {"now_ms": now_ms})]


def revoked(conn: Connection, now_ms: int) -> tuple[int, Mapping[str, int]]:
    """The number of the next list of revocations, and what it holds: serial to UTC ms."""
    with conn.transaction():
        row = conn.execute(query("next_revocation_list")).fetchone()
        assert row is not None, "a sequence has a next value"
        rows = conn.execute(query("revoked_serials"), {"now_ms": now_ms}).fetchall()
        return row[0], dict(rows)


def publish_command_keys(conn: Connection, keys: Sequence[str], by: str, now_ms: int) -> int:
    """Record the verification keys that meters should hold; returns their version."""
    row = conn.execute(
        query("add_command_keys"), {"keys": list(keys), "by": by, "now_ms": now_ms}
    ).fetchone()
    assert row is not None, "the insert returns its version"
    version: int = row[0]
    return version


def direct_meters(conn: Connection) -> Sequence[str]:
    """Numbers of the meters that have a connection of their own."""
    return [number for (number,) in conn.execute(query("direct_meters"))]


def count_refusals(conn: Connection, refused: Iterable[Refused], now_ms: int) -> None:
    """Add to the counts of the day."""
    rows = list(refused)
    if not rows:
        return
    conn.execute(
        query("count_refusals"),
        {
            "devices": [_plain(row.device, NAME_LENGTH) for row in rows],
            "reasons": [row.reason for row in rows],
            "counts": [row.times for row in rows],
            "details": [_plain(row.detail, DETAIL_LENGTH) for row in rows],
            "now_ms": now_ms,
        },
    )


def refusals(conn: Connection, since_ms: int, limit: int = 1000) -> Sequence[RefusalCount]:
    """What was refused since an instant, newest first."""
    rows = conn.execute(query("list_refusals"), {"since_ms": since_ms, "limit": limit}).fetchall()
    return [RefusalCount(*row) for row in rows]


def _record(conn: Connection, new: NewCertificate, by: str, now_ms: int) -> NewCertificate:
    conn.execute(query("add_certificate"), {**new._asdict(), "by": by, "now_ms": now_ms})
    return new


def _registered(conn: Connection, role: str, name: str) -> int | None:
    if role not in {"meter", "gateway"}:
        return None
    row = conn.execute(query(f"registered_{role}"), {"name": name}).fetchone()
    if row is None:
        raise NotFound(f"{role.capitalize()} {name}")
    number: int = row[0]
    return number


def _plain(text: str, length: int) -> str:
    """A stranger's text as the database can hold it."""
    return text[:length].replace("\0", "?").encode(errors="replace").decode()
