"""What mosquitto's log tells of refusals: nobody else sees them, and the broker has no counter.

mosquitto 2.0 answers a denied publication to the device alone, tells of it at the level `debug`
only, and never through its `$SYS` topics. It grants any subscription and then delivers nothing, so
that a device that asks for another's topics is seen by what it asked for.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from schemas.identity import is_gateway_name, is_meter_number
from schemas.topics import is_claim_name
from store.trust import DETAIL_LENGTH, NAME_LENGTH, Refused

_PREFIX = r"^(?:\d+: |\d{4}-\d\d-\d\dT[\d:]+: )?"
_DENIED = re.compile(_PREFIX + r"Denied PUBLISH from (?P<device>\S+) \(.*?'(?P<detail>[^']*)'")
_SUBSCRIBED = re.compile(_PREFIX + r"(?P<device>\S+) [012] (?P<detail>\S+)$")
# The reason codes of a refused user: MQTT 3.1.1's 4 and 5, MQTT 5's 134 and 135.
_LOGIN = re.compile(_PREFIX + r"Sending CONNACK to (?P<device>\S+) \(0, (?:4|5|134|135)\)")
_CERTIFICATE = re.compile(r"OpenSSL Error.*certificate verify failed|peer did not return a cert")
_KEY = re.compile(r"OpenSSL Error.*(?:bad record mac|psk identity not found)")
# Client ids of the server's parts; on a device's listener the id is the device's own name.
_OURS = "prepaid-"
READ_BYTES = 1024 * 1024
# A log that grew past this and was read is begun anew: the broker appends, so that nothing is torn.
TRIM_BYTES = 16 * 1024 * 1024


class Seen(NamedTuple):
    """One refusal: by whom (empty where the handshake failed before a name was known), and what."""

    device: str
    reason: str
    detail: str


def read_line(line: str) -> Seen | None:
    """The refusal that a line tells of, if any."""
    denied = _DENIED.search(line)
    if denied is not None:
        return Seen(denied["device"], "denied_publish", denied["detail"])
    login = _LOGIN.search(line)
    if login is not None:
        return Seen(login["device"], "login_refused", "")
    if _CERTIFICATE.search(line):
        return Seen("", "certificate_refused", "")
    if _KEY.search(line):
        return Seen("", "key_refused", "")
    asked = _SUBSCRIBED.search(line)
    if asked is not None and _is_foreign(asked["device"], asked["detail"]):
        return Seen(asked["device"], "foreign_subscription", asked["detail"])
    return None


def _is_foreign(device: str, topic_filter: str) -> bool:
    if device.startswith(_OURS):
        return False
    if not (is_meter_number(device) or is_gateway_name(device) or is_claim_name(device)):
        return False
    own = (f"pm/v1/m/{device}/dn/", f"pm/v1/g/{device}/dn/", f"pm/v1/e/{device}/cert")
    return not topic_filter.startswith(own)


@dataclass(slots=True)
class Tally:
    """Refusals since they were last taken, by device and reason."""

    _times: Counter[tuple[str, str]] = field(default_factory=Counter)
    _details: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, seen: Seen) -> None:
        key = (seen.device[:NAME_LENGTH], seen.reason)
        self._times[key] += 1
        self._details[key] = seen.detail[:DETAIL_LENGTH]

    def take(self) -> list[Refused]:
        """What was counted; counting begins anew."""
        taken = [
            Refused(device, f"broker:{reason}", times, self._details[device, reason])
            for (device, reason), times in self._times.items()
        ]
        self._times.clear()
        self._details.clear()
        return taken

    def give_back(self, refused: list[Refused]) -> None:
        """Count these again: they could not be recorded."""
        for device, reason, times, detail in refused:
            key = (device, reason.removeprefix("broker:"))
            self._times[key] += times
            self._details.setdefault(key, detail)


class LogFile:
    """New whole lines of a growing file, over rotations; with `trim`, it is kept small.

    Reading begins at the end: what was said before is another run's.
    """

    def __init__(self, path: Path, *, trim: bool = False) -> None:
        self._path = path
        self._trim = trim
        self._rest = b""
        self._inode, self._at = self._end()

    def lines(self) -> Iterator[str]:
        """What was written since the last call."""
        try:
            with self._path.open("rb") as file:
                found = self._path.stat()
                if found.st_ino != self._inode or found.st_size < self._at:
                    self._inode, self._at, self._rest = found.st_ino, 0, b""
                file.seek(self._at)
                while data := file.read(READ_BYTES):
                    self._at += len(data)
                    *whole, self._rest = (self._rest + data).split(b"\n")
                    for line in whole:
                        yield line.decode(errors="replace")
        except FileNotFoundError:
            return
        if self._trim and self._at > TRIM_BYTES:
            with self._path.open("r+b") as file:
                file.truncate(0)
            self._at = 0

    def _end(self) -> tuple[int, int]:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return 0, 0
        return found.st_ino, found.st_size
