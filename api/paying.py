"""What the API asks of whoever talks to the channels by which customers pay; it knows none."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Literal, Protocol

from pydantic import SecretStr

from store.errors import NotFound
from store.idempotency import Claim
from store.payment_attempts import Attempt
from store.pool import Connection


class Method(Protocol):
    """A way to pay. `kind`: whether the payer confirms with a passcode, goes on at a page, or
    brings cash to a desk.
    """

    @property
    def code(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> Literal["passcode", "page", "cash"]: ...


class Payments(Protocol):
    """Futures end when what was said is in the books; nobody needs to wait for them."""

    def methods(self) -> Sequence[Method]:
        """Every way to pay."""
        ...

    def start(
        self,
        conn: Connection,
        *,
        account_id: int,
        currency: str,
        method: str,
        started_by: str,
        key: str,
        request_sha256: bytes,
        amount_micro: int,
        unusual_confirmed: bool,
        msisdn: str | None,
        counted_micro: int | None,
    ) -> str:
        """Record a payment that is to be made, or was made in cash; returns its id, the same for a
        repeat. Nobody outside is asked.
        """
        ...

    def go_on(self, attempt: str) -> "Future[None]":
        """Make it known to its channel. Errors: TooManyAttempts; it is done later all the same."""
        ...

    def confirm(
        self, attempt: str, *, msisdn: str, passcode: SecretStr, by: str, claim: Claim
    ) -> "Future[None]":
        """Ask the channel for the money, once under a key. Errors: TooManyAttempts: nothing was
        asked.
        """
        ...

    def take_notification(
        self, method: str, *, source: str, query: str, headers: Mapping[str, str], body: bytes
    ) -> None:
        """What somebody says in a channel's name. Errors: Unproven, NotFound, DomainError."""
        ...

    def come_back(self, method: str, attempt: str) -> Attempt:
        """A browser came back from a channel's page. Errors: NotFound."""
        ...


class _NoPayments:
    """An installation where customers pay elsewhere: no method is configured."""

    def methods(self) -> Sequence[Method]:
        return ()

    def start(self, conn: Connection, **_: object) -> str:
        raise NotFound("The payment method")

    def go_on(self, attempt: str) -> "Future[None]":
        raise NotFound("The payment method")

    def confirm(self, attempt: str, **_: object) -> "Future[None]":
        raise NotFound("The payment method")

    def take_notification(self, method: str, **_: object) -> None:
        raise NotFound("The payment method")

    def come_back(self, method: str, attempt: str) -> Attempt:
        raise NotFound("The payment method")


NO_PAYMENTS: Payments = _NoPayments()
