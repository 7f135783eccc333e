"""The desk between customers and channels: starts payments, passes on what confirms them, and takes
what channels say. What it asks of a channel runs on threads of its own, so that a channel that
hangs holds up nobody but its own payers.

- Source: requests of the API, notifications, the sweep.
- Bound: `CALLS_AT_ONCE` calls run and `CALLS_WAITING` wait.
- When full: what would begin is refused with the time to come again; nothing was asked.
- On stop: calls under way end, at most by their timeout; the sweep finds what they left.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

import structlog
from pydantic import SecretStr

from payments.port import Confirmation, Connector, Method, Notice, Notification, Started
from payments.schedule import FIRST_MS, SECOND_MS, next_check_ms
from schemas.errors import DomainError
from schemas.quantities import in_coins
from store import payment_attempts, payment_words
from store.errors import Conflict, NotFound, StoreError, TooManyAttempts
from store.idempotency import Claim
from store.payment_attempts import Attempt, NewAttempt
from store.payment_words import Ears, Word
from store.pool import Connection, Pool, borrow

_log = structlog.stdlib.get_logger("payments")
_Result = TypeVar("_Result")

CALLS_AT_ONCE = 8
CALLS_WAITING = 32
BUSY_AGAIN_S = 5
# An order that no channel knows yet may be gone on with for so long.
START_WAIT_MS = 15 * 60 * SECOND_MS
# A page that is closed in the last second is told of later.
NOTIFIED_WITHIN_MS = 10 * 60 * SECOND_MS


@dataclass(frozen=True, slots=True)
class Cash:
    """Tills: `coins` is the smallest coin per currency, in micro-units."""

    code: str
    name: str
    coins: Mapping[str, int]


class PaymentDesk:
    """Every configured method, and what is done with it. A context that ends its threads."""

    def __init__(
        self, connectors: Sequence[Connector], cash: Cash | None, *, pool: Pool, ears: Ears
    ) -> None:
        self.connectors = {each.method.code: each for each in connectors}
        self._cash = cash
        self._pool = pool
        self.ears = ears
        self._room = threading.BoundedSemaphore(CALLS_AT_ONCE + CALLS_WAITING)
        self._threads = ThreadPoolExecutor(CALLS_AT_ONCE, "payments")
        codes = [*self.connectors, *([] if cash is None else [cash.code])]
        if len(set(codes)) != len(connectors) + (cash is not None):
            raise ValueError("a payment method stands twice: keep one")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._threads.shutdown(wait=True)
        for each in self.connectors.values():
            each.close()

    def methods(self) -> list[Method]:
        """Every way to pay, in the order of the settings."""
        found = [each.method for each in self.connectors.values()]
        if self._cash is not None:
            found.append(Method(self._cash.code, self._cash.name, "cash"))
        return found

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
        """Record an attempt, or take cash; returns its id, the same for a repeat.

        Errors: as `payment_attempts.start`, for cash as `payment_words.take_cash`; NotFound, no
        such method.
        """
        cash = self._cash if self._cash is not None and self._cash.code == method else None
        if cash is None:
            self._connector(method)
        wall_ms = self.ears.wall_ms()
        new = NewAttempt(
            account_id=account_id,
            method=method,
            started_by=started_by,
            key=key,
            request_sha256=request_sha256,
            amount_micro=amount_micro,
            unusual_confirmed=unusual_confirmed,
            msisdn=msisdn,
            lapses_wall_ms=None if cash else wall_ms + START_WAIT_MS,
            next_check_wall_ms=None if cash else wall_ms + FIRST_MS[0],
        )
        if cash is None:
            return payment_attempts.start(conn, new, self.ears.now_ms(), wall_ms)
        coin = cash.coins.get(currency)
        if counted_micro is None:
            counted_micro = in_coins(amount_micro, coin or 1)
        return payment_words.take_cash(
            conn, self.ears, new, counted_micro=counted_micro, coin_micro=coin
        )

    def go_on(self, attempt: str) -> Future[None]:
        """Make an attempt known to its channel, on a thread; nothing where it is known.

        Errors: TooManyAttempts, there is no room.
        """
        return self._run(lambda: self._open(attempt))

    def confirm(
        self, attempt: str, *, msisdn: str, passcode: SecretStr, by: str, claim: Claim
    ) -> Future[None]:
        """Ask the channel to take the money, on a thread; nothing where it was asked before. The
        future ends with the channel's word, whatever it is, in the books.

        Errors: TooManyAttempts, there is no room; of the future: Conflict `payment_over`,
        `not_confirmed_here`, `idempotency_conflict`.
        """
        given = Confirmation(msisdn, passcode)
        return self._run(lambda: self._confirm(attempt, given, by, claim))

    def take_notification(
        self, method: str, *, source: str, query: str, headers: Mapping[str, str], body: bytes
    ) -> None:
        """Believe a channel's notification, or ask the channel soon because of it.

        Errors: NotFound, no such method or order; Unproven, nobody knows who sent it; DomainError
        `notification_malformed`; Conflict `reference_reused`. All of them are counted.
        """
        connector = self._connector(method)
        try:
            sent = Notification(source, query, headers, body)
            self._take(connector, connector.understand(sent))
        except DomainError as error:
            # What the database could not take now comes again, and is no refusal.
            if not isinstance(error, StoreError) or isinstance(error, NotFound | Conflict):
                with borrow(self._pool) as conn:
                    payment_attempts.count_refusal(conn, method, error.code, self.ears.wall_ms())
                _log.warning("notification_refused", method=method, code=error.code)
            raise

    def come_back(self, method: str, attempt: str) -> Attempt:
        """A browser came back from the channel's page, whatever it says: a reason to ask, at most.

        Errors: NotFound.
        """
        connector = self._connector(method)
        with borrow(self._pool) as conn:
            found = payment_attempts.find(conn, attempt)
            if found.method != method:
                raise NotFound("The payment")
            if connector.checks:
                payment_attempts.hasten(conn, attempt, self.ears.wall_ms())
            return found

    def look(self, attempt: Attempt) -> None:
        """Go on with one attempt that the sweep found due."""
        connector = self._connector(attempt.method)
        wall_ms = self.ears.wall_ms()
        lapsed = attempt.lapses_wall_ms is not None and wall_ms >= attempt.lapses_wall_ms
        if attempt.state == "received":
            with borrow(self._pool) as conn:
                payment_words.credit_again(conn, self.ears, attempt.id)
        elif attempt.state == "started":
            if lapsed:
                over = Word("expired", "lapsed", detail="nobody went on with it in time")
                self._hear(attempt, over, "clock", None)
            elif attempt.going_on is None:
                self._open(attempt.id)
            else:
                self._hear_at(attempt, attempt.lapses_wall_ms)
        elif connector.checks:
            self._check(connector, attempt)
        else:
            self._wait_for_word(attempt, wall_ms)

    def _connector(self, method: str) -> Connector:
        try:
            return self.connectors[method]
        except KeyError:
            raise NotFound("The payment method") from None

    def _run(self, work: Callable[[], _Result]) -> Future[_Result]:
        if not self._room.acquire(blocking=False):
            raise TooManyAttempts(BUSY_AGAIN_S)

        def run() -> _Result:
            try:
                return work()
            except DomainError:
                raise
            except Exception:
                # Whoever asked may have stopped waiting: the sweep goes on with what is left.
                _log.exception("payment_call_failed")
                raise
            finally:
                self._room.release()

        return self._threads.submit(run)

    def _open(self, number: str) -> None:
        with borrow(self._pool) as conn:
            attempt = payment_attempts.find(conn, number)
        if attempt.state != "started" or attempt.going_on is not None:
            return
        said = self._connector(attempt.method).start(attempt)
        if isinstance(said, Started):
            self._opened(attempt, said)
        elif said.state == "failed":
            self._hear(attempt, said, "channel", None)
        else:
            # Nothing was asked that takes money: it is started, and tried again.
            self._hear_at(attempt, self.ears.wall_ms() + FIRST_MS[0])

    def _opened(self, attempt: Attempt, said: Started) -> None:
        wall_ms = self.ears.wall_ms()
        lapses_ms = wall_ms + said.lapses_s * SECOND_MS
        connector = self._connector(attempt.method)
        asks = said.pays_alone and connector.checks
        with borrow(self._pool) as conn:
            payment_attempts.opened(
                conn,
                attempt.id,
                order_reference=said.order_reference,
                going_on=said.going_on,
                lapses_wall_ms=lapses_ms,
                asked_wall_ms=wall_ms if said.pays_alone else None,
                next_check_wall_ms=wall_ms + FIRST_MS[0]
                if asks
                else lapses_ms + (NOTIFIED_WITHIN_MS if said.pays_alone else 0),
                now_ms=self.ears.now_ms(),
            )

    def _confirm(self, number: str, given: Confirmation, by: str, claim: Claim) -> None:
        wall_ms = self.ears.wall_ms()
        with borrow(self._pool) as conn:
            attempt = payment_attempts.find(conn, number)
            connector = self._connector(attempt.method)
            if connector.method.kind != "passcode":
                raise Conflict("not_confirmed_here", "go on at the address of the payment")
            asked = payment_attempts.ask(
                conn,
                number,
                msisdn=given.msisdn,
                by=by,
                claim=claim,
                # Not while the call itself may still bring the answer.
                next_check_wall_ms=wall_ms + connector.timeout_s * SECOND_MS + FIRST_MS[0],
                now_ms=self.ears.now_ms(),
                wall_ms=wall_ms,
            )
        if asked:
            said = connector.confirm(attempt, given)
            after_ms = self.ears.wall_ms()
            self._hear(attempt, said, "channel", after_ms + (next_check_ms(0) or 0))

    def _take(self, connector: Connector, notice: Notice) -> None:
        with borrow(self._pool) as conn:
            attempt = payment_attempts.of_order(conn, connector.method.code, notice.order)
            if attempt is None:
                raise NotFound("The order")
            if connector.checks and not notice.proven:
                payment_attempts.hasten(conn, attempt.id, self.ears.wall_ms())
                return
        if notice.word is not None:
            self._hear(attempt, notice.word, "channel", attempt.next_check_wall_ms)

    def _check(self, connector: Connector, attempt: Attempt) -> None:
        said = connector.check(attempt)
        wall_ms = self.ears.wall_ms()
        age_ms = wall_ms - (wall_ms if attempt.asked_wall_ms is None else attempt.asked_wall_ms)
        wait_ms = next_check_ms(age_ms)
        if said.state == "unknown" and attempt.going_on is not None:
            said = _of_a_page(attempt, said, wall_ms)
        if wait_ms is None and said.state in {"pending", "unknown"}:
            said = Word("unknown", "given_up", detail="the channel's daily file decides")
        following = None if wait_ms is None else wall_ms + wait_ms
        self._hear(attempt, said, "check", following)

    def _wait_for_word(self, attempt: Attempt, wall_ms: int) -> None:
        until_ms = (attempt.lapses_wall_ms or 0) + NOTIFIED_WITHIN_MS
        if wall_ms < until_ms:
            self._hear_at(attempt, until_ms)
            return
        none = Word("unknown", "no_word", detail="the channel's daily file decides")
        self._hear(attempt, none, "clock", None)

    def _hear_at(self, attempt: Attempt, at_wall_ms: int | None) -> None:
        """Look again at `at_wall_ms`; nothing new was said."""
        with borrow(self._pool) as conn:
            payment_attempts.look_again(conn, attempt.id, at_wall_ms)

    def _hear(self, attempt: Attempt, said: Word, by: str, next_check_wall_ms: int | None) -> None:
        with borrow(self._pool) as conn:
            after = payment_words.hear(
                conn, self.ears, attempt.id, said, by=by, next_check_wall_ms=next_check_wall_ms
            )
        _log.info(
            "payment_heard",
            attempt=attempt.id,
            method=attempt.method,
            word=said.word,
            by=by,
            state=after.state,
        )


def _of_a_page(attempt: Attempt, said: Word, wall_ms: int) -> Word:
    """While a page is open it is under way, whatever nobody knows; and what the channel does not
    know once its page takes no more money was never begun.
    """
    lapses_ms = attempt.lapses_wall_ms or 0
    if attempt.state == "pending" and wall_ms < lapses_ms:
        return Word("pending", said.word)
    if said.word == "not_known" and wall_ms >= lapses_ms + NOTIFIED_WITHIN_MS:
        return Word("expired", "never_begun", detail="nobody paid while the page was open")
    return said
