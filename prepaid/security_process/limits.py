"""What a security module gives out at most, counted inside, where the callers cannot reach it.

Who takes over the desk can ask for tokens; these limits bound what is lost until somebody looks.
The count is on disk before the digits leave, so that ending the process gives nothing back.
"""

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.errors import DomainError
from tokens import apdu
from tokens.apdu import Apdu
from tokens.errors import LimitReached, TokenError
from tokens.keys import KeyAttributes
from tokens.security_module import SecurityModule

COUNTER_MODE = 0o600
# Ten searches for a slip of the fingers, of some 200 tries each; a guesser who may try as often
# needs more than a day for one token of one meter.
MAX_FAILED_VERIFICATIONS = 2000
INTERVAL_MS = 3_600_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """`max_credit` and `max_currency` are of one token, in smallest units of its subclass (0.1 kWh,
    0.1 m3, 0.1 min; hundred-thousandths of currency); the others are of one interval. None: any.

    `max_failed_verifications`: whoever may ask "is this a token of this meter" often enough finds
    one: the check has 16 bits.
    """

    max_credit: int | None = None
    max_currency: int | None = None
    max_vends: int | None = None
    max_failed_verifications: int = MAX_FAILED_VERIFICATIONS
    interval_ms: int = INTERVAL_MS


class Counted(BaseModel):
    """The count on disk: vends ever, and those of the interval that began at `began_ms`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    vends: int = 0
    began_ms: int = 0
    in_interval: int = 0

    def at(self, now_ms: int, interval_ms: int) -> "Counted":
        """The count as it stands at an instant. A clock that goes back begins no new interval."""
        if now_ms < self.began_ms:
            return self.model_copy(update={"began_ms": now_ms})
        if now_ms - self.began_ms < interval_ms:
            return self
        return Counted(vends=self.vends, began_ms=now_ms)


class VendCounter:
    """A count in a file, which is replaced whole and synced at each vend."""

    def __init__(self, path: Path) -> None:
        """Errors: DomainError `counter_invalid`."""
        self._path = path
        try:
            self.counted = Counted.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            self.counted = Counted()
        except (ValidationError, OSError):
            raise DomainError(
                "counter_invalid",
                f"{path} is no vend counter that can be read: restore it, or remove it and note "
                "why the count begins again",
            ) from None

    def keep(self, counted: Counted) -> None:
        """Errors: OSError: then nothing was counted and nothing may leave."""
        draft = self._path.with_suffix(".draft")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, COUNTER_MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(counted.model_dump_json().encode())
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
        self.counted = counted


@dataclass(frozen=True, slots=True)
class _Failures:
    began_ms: int = 0
    count: int = 0


class LimitedSecurityModule:
    """A security module within limits; one call at a time. Without `counter` no vend is counted."""

    def __init__(
        self,
        module: SecurityModule,
        limits: Limits,
        counter: VendCounter | None,
        now_ms: Callable[[], int],
    ) -> None:
        assert counter is not None or limits.max_vends is None, "what is limited is counted"
        self._module = module
        self._limits = limits
        self._counter = counter
        self._now_ms = now_ms
        self._failures = _Failures()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<LimitedSecurityModule, {self._limits!r}, {self._module!r}>"

    def issue_credit(
        self,
        meter_pan: str,
        attributes: KeyAttributes,
        *,
        subclass: int,
        amount: int,
        tid_minutes: int,
        rnd: int,
    ) -> str:
        self._demand_value(subclass, amount)
        return self._vend(
            lambda: self._module.issue_credit(
                meter_pan,
                attributes,
                subclass=subclass,
                amount=amount,
                tid_minutes=tid_minutes,
                rnd=rnd,
            )
        )

    def issue_management(
        self,
        meter_pan: str,
        attributes: KeyAttributes,
        *,
        subclass: int,
        fields: Mapping[str, int],
        tid_minutes: int,
        rnd: int,
    ) -> str:
        return self._vend(
            lambda: self._module.issue_management(
                meter_pan,
                attributes,
                subclass=subclass,
                fields=fields,
                tid_minutes=tid_minutes,
                rnd=rnd,
            )
        )

    def issue_key_change(
        self,
        meter_pan: str,
        old: KeyAttributes,
        new: KeyAttributes,
        *,
        tid_minutes: int,
        triplet: bool = False,
    ) -> tuple[str, ...]:
        return self._vend(
            lambda: self._module.issue_key_change(
                meter_pan, old, new, tid_minutes=tid_minutes, triplet=triplet
            )
        )

    def verify(self, meter_pan: str, attributes: KeyAttributes, digits: str) -> Apdu:
        with self._lock:
            now_ms = self._now_ms()
            if not 0 <= now_ms - self._failures.began_ms < self._limits.interval_ms:
                self._failures = _Failures(now_ms)
            if self._failures.count >= self._limits.max_failed_verifications:
                raise LimitReached(
                    "Too many digits that are no token were tried: wait until the interval is "
                    "over, and find out who tries them.",
                    self._over_in_s(self._failures.began_ms, now_ms),
                )
            try:
                return self._module.verify(meter_pan, attributes, digits)
            except TokenError as error:
                if error.code == "crc_error":
                    self._failures = replace(self._failures, count=self._failures.count + 1)
                raise

    def key_check_value(self, sgc: str, krn: int) -> str:
        return self._module.key_check_value(sgc, krn)

    def _demand_value(self, subclass: int, amount: int) -> None:
        currency = subclass in apdu.CURRENCY_SUBCLASSES
        most = self._limits.max_currency if currency else self._limits.max_credit
        if most is not None and abs(amount) > most:
            raise TokenError(
                "amount_over_limit",
                f"{amount} smallest units in one token are over this security module's limit of "
                f"{most}: sell less at once, or have the limit raised.",
            )

    def _over_in_s(self, began_ms: int, now_ms: int) -> int:
        """Seconds until an interval is over, rounded up: who comes then is not too early."""
        return -((now_ms - began_ms - self._limits.interval_ms) // 1000)

    def _vend(self, issue: Callable[[], T]) -> T:
        if self._counter is None:
            return issue()
        with self._lock:
            most = self._limits.max_vends
            now_ms = self._now_ms()
            counted = self._counter.counted.at(now_ms, self._limits.interval_ms)
            if most is not None and counted.in_interval >= most:
                raise LimitReached(
                    f"This security module has given out the {most} vends of its "
                    "interval: wait until it is over, or have the limit raised.",
                    self._over_in_s(counted.began_ms, now_ms),
                )
            made = issue()
            added = {"vends": counted.vends + 1, "in_interval": counted.in_interval + 1}
            self._counter.keep(counted.model_copy(update=added))
            return made
