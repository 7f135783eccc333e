"""Devices that speak another protocol: which meter each is, and what it takes to read it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from zoneinfo import ZoneInfo

from psycopg import Connection

from schemas.errors import DomainError
from store.errors import Conflict, NotFound
from store.sql import query


@dataclass(frozen=True, slots=True)
class NewDevice:
    """A device as an operator enters it. `zone` is the IANA name of a clock that tells no offset;
    `trusted` is its profile's word: whether nobody can set its totals back.
    """

    profile: str
    name: str
    meter: str
    trusted: bool
    zone: str = "UTC"
    sealed_keys: bytes | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """A device as the adapter reads it; `counter` and `digest` are of the last frame taken."""

    id: int
    meter: str
    zone: ZoneInfo
    sealed_keys: bytes | None
    counter: int | None
    digest: bytes | None


class FrameCounter(NamedTuple):
    """The invocation counter of a protected frame that was taken, and the frame's digest."""

    device: int
    counter: int
    digest: bytes


class DeviceLine(NamedTuple):
    """One line of the list: a device, its meter and the last stored total (1.8.0, Wh)."""

    profile: str
    name: str
    meter: str
    trusted: bool
    zone: str
    has_keys: bool
    frame_counter: int | None
    last_ms: int | None
    last_wh: int | None
    last_verdict: str | None


def find(conn: Connection, profile: str, names: Sequence[str]) -> dict[str, Device]:
    """Those of `names` that are devices of this profile."""
    rows = conn.execute(
        query("foreign_devices"), {"profile": profile, "names": list(names)}
    ).fetchall()
    return {
        name: Device(device, meter, ZoneInfo(zone), sealed, counter, digest)
        for name, device, meter, zone, sealed, counter, digest in rows
    }


def add(conn: Connection, device: NewDevice, who: str, now_ms: int) -> int:
    """Map a device to a meter. Without trust the meter is never billed again, so that one which
    was billed already is refused.

    Errors: NotFound (meter); DomainError `bad_zone`; Conflict `device_exists`, `meter_is_billed`.
    """
    _check_zone(device.zone)
    with conn.transaction():
        # A batch holds this row until its readings have their verdicts.
        conn.execute(query("lock_meters"), {"numbers": [device.meter]})
        row = conn.execute(query("meter_for_device"), {"number": device.meter}).fetchone()
        if row is None:
            raise NotFound(f"Meter {device.meter}")
        meter, trusted, billed = row
        if billed and not device.trusted:
            raise Conflict(
                "meter_is_billed",
                f"meter {device.meter} was billed already, and a device whose totals can be set "
                "back bills nobody: register a meter of its own for it",
            )
        found = conn.execute(
            query("add_foreign_device"),
            {
                "profile": device.profile,
                "name": device.name,
                "meter": meter,
                "trusted": device.trusted,
                "zone": device.zone,
                "sealed_keys": device.sealed_keys,
                "who": who,
                "now_ms": now_ms,
            },
        ).fetchone()
        if found is None:
            raise Conflict(
                "device_exists",
                f"{device.name} or meter {device.meter} is mapped already: remove that one first",
            )
        if trusted and not device.trusted:
            conn.execute(query("withdraw_trust"), {"meter": meter})
        return int(found[0])


def remove(conn: Connection, profile: str, name: str) -> None:
    """Unmap a device; its readings stay, as does the meter's lack of trust. Errors: NotFound."""
    values = {"profile": profile, "name": name}
    if conn.execute(query("remove_foreign_device"), values).fetchone() is None:
        raise NotFound(f"Device {name} of {profile}")


def listed(conn: Connection) -> list[DeviceLine]:
    """All devices, by profile and name."""
    return [DeviceLine(*row) for row in conn.execute(query("list_foreign_devices"))]


def keep_counters(conn: Connection, frames: Sequence[FrameCounter]) -> None:
    """Remember the highest counter of each device, in the transaction of what the frames said."""
    highest: dict[int, FrameCounter] = {}
    for frame in frames:
        known = highest.get(frame.device)
        if known is None or frame.counter > known.counter:
            highest[frame.device] = frame
    if not highest:
        return
    rows = [highest[device] for device in sorted(highest)]
    values: Mapping[str, object] = {
        "devices": [row.device for row in rows],
        "counters": [row.counter for row in rows],
        "digests": [row.digest for row in rows],
    }
    conn.execute(query("keep_frame_counters"), values)


def _check_zone(zone: str) -> None:
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        raise DomainError(
            "bad_zone", f"Give a zone such as Africa/Nouakchott, not {zone!r:.60}."
        ) from None
