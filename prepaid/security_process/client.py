"""The security module of another process, as if it were here."""

import socket
import threading
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from prepaid.security_process import frames
from prepaid.security_process.frames import Answer, Request
from tokens.apdu import Apdu
from tokens.errors import LimitReached, SecurityModuleAway, TokenError
from tokens.keys import KeyAttributes

# An answer takes about a millisecond; a vend holds its account's lock while it waits.
ANSWER_S = 2.0


class RemoteSecurityModule:
    """One connection, one call at a time, made anew when the process was started again.

    To ask twice is safe: TID and RND are the caller's, so that the same request makes the same
    digits. Errors of each call: those of the module; SecurityModuleAway when it cannot be reached.
    """

    def __init__(self, path: Path, answer_s: float = ANSWER_S) -> None:
        self._path = path
        self._answer_s = answer_s
        self._connection: socket.socket | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<RemoteSecurityModule at {self._path}>"

    def close(self) -> None:
        """End the connection; the next call makes another."""
        with self._lock:
            self._drop()

    def __del__(self) -> None:
        # A command that ends, or a lifespan that knows the Protocol alone, does not close it.
        self._drop()

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
        return self._digits(
            frames.IssueCredit(
                meter_pan=meter_pan,
                attributes=attributes,
                subclass=subclass,
                amount=amount,
                tid_minutes=tid_minutes,
                rnd=rnd,
            )
        )[0]

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
        return self._digits(
            frames.IssueManagement(
                meter_pan=meter_pan,
                attributes=attributes,
                subclass=subclass,
                fields=dict(fields),
                tid_minutes=tid_minutes,
                rnd=rnd,
            )
        )[0]

    def issue_key_change(
        self,
        meter_pan: str,
        old: KeyAttributes,
        new: KeyAttributes,
        *,
        tid_minutes: int,
        triplet: bool = False,
    ) -> tuple[str, ...]:
        return self._digits(
            frames.IssueKeyChange(
                meter_pan=meter_pan, old=old, new=new, tid_minutes=tid_minutes, triplet=triplet
            )
        )

    def verify(self, meter_pan: str, attributes: KeyAttributes, digits: str) -> Apdu:
        """As in the Protocol, without the sections of a key that a key change token carries."""
        asked = frames.Verify(meter_pan=meter_pan, attributes=attributes, digits=digits)
        read = self._ask(asked).read
        if read is None:
            raise self._away("it answers another question")
        return Apdu(read.cls, read.subclass, read.fields)

    def key_check_value(self, sgc: str, krn: int) -> str:
        value = self._ask(frames.CheckValue(sgc=sgc, krn=krn)).check_value
        if value is None:
            raise self._away("it answers another question")
        return value

    def _digits(self, request: Request) -> tuple[str, ...]:
        digits = self._ask(request).digits
        if not digits:
            raise self._away("it answers another question")
        return tuple(digits)

    def _ask(self, request: Request) -> Answer:
        if not self._lock.acquire(timeout=self._answer_s):
            raise self._away("others wait for it already")
        try:
            answer = self._exchange(request)
        finally:
            self._lock.release()
        refused = answer.refused
        if refused is None:
            return answer
        if refused.code == "security_module_away":
            raise SecurityModuleAway(refused.message)
        if refused.retry_after_s is not None:
            raise LimitReached(refused.message, refused.retry_after_s)
        raise TokenError(refused.code, refused.message)

    def _exchange(self, request: Request) -> Answer:
        held = self._connection is not None
        try:
            return self._once(request)
        except TimeoutError:
            self._drop()
            raise self._away("no answer in time") from None
        except (OSError, ValidationError, ValueError) as error:
            self._drop()
            if not held:
                raise self._away(getattr(error, "strerror", None) or "it is none") from None
        # The connection was one to a process that has ended since: there may be another.
        try:
            return self._once(request)
        except (OSError, ValidationError, ValueError) as error:
            self._drop()
            raise self._away(getattr(error, "strerror", None) or "it is none") from None

    def _once(self, request: Request) -> Answer:
        if self._connection is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(self._answer_s)
            try:
                connection.connect(str(self._path))
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        frames.send(self._connection, request)
        body = frames.receive(self._connection)
        if body is None:
            raise ConnectionResetError(104, "it has ended")
        return Answer.model_validate_json(body)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _away(self, why: str) -> SecurityModuleAway:
        return SecurityModuleAway(
            f"The security module at {self._path} does not answer ({why}): start it with "
            "`prepaid security-module`, then send the same request again."
        )
