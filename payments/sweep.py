"""The sweep: goes on with every payment that nobody waits for, after any crash or pause.

- Source: attempts that are due; any number of processes share them, each claims its own.
- Bound: `ATTEMPTS_AT_ONCE` claimed, `LOOKERS` calls to channels at once.
- When full: the rest is due a moment later.
- On stop: calls under way end, at most by their timeout; a claim of one who died lapses.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

import structlog

from payments.desk import PaymentDesk
from payments.schedule import SECOND_MS
from schemas.errors import DomainError
from store import payment_attempts
from store.payment_attempts import Attempt
from store.pool import Pool, borrow

_log = structlog.stdlib.get_logger("payments")

LOOKERS = 4
ATTEMPTS_AT_ONCE = 2 * LOOKERS
ROUND_S = 1
# After a round that failed: a database that is away or to migrate is not asked every second.
AGAIN_S = 10
# After the slowest call and its books a claim is over: whoever made it is dead.
CLAIM_BEYOND_MS = 30 * SECOND_MS


def sweep_once(desk: PaymentDesk, pool: Pool) -> int:
    """Go on with what is due now; how many attempts that were."""
    methods = list(desk.connectors)
    if not methods:
        return 0
    slowest_ms = max(each.timeout_s for each in desk.connectors.values()) * SECOND_MS
    wall_ms = desk.ears.wall_ms()
    # A call may need a provider session first, and be asked twice.
    until_ms = wall_ms + 4 * slowest_ms + CLAIM_BEYOND_MS
    with borrow(pool) as conn:
        due = payment_attempts.claim_due(conn, methods, wall_ms, until_ms, ATTEMPTS_AT_ONCE)
    if due:
        with ThreadPoolExecutor(LOOKERS, "payment-sweep") as lookers:
            list(lookers.map(lambda attempt: _look(desk, attempt), due))
    return len(due)


def sweep(desk: PaymentDesk, pool: Pool, stopping: threading.Event) -> None:
    """Rounds until `stopping`."""
    while not stopping.is_set():
        try:
            wait_s = 0 if sweep_once(desk, pool) else ROUND_S
        except DomainError as error:
            _log.warning("payment_sweep_waits", code=error.code)
            wait_s = AGAIN_S
        except Exception:
            # A loop that dies would leave payers waiting: a later round tries again.
            _log.exception("payment_sweep_failed")
            wait_s = AGAIN_S
        stopping.wait(wait_s)


def _look(desk: PaymentDesk, attempt: Attempt) -> None:
    try:
        desk.look(attempt)
    except DomainError as error:
        _log.warning("payment_look_failed", attempt=attempt.id, code=error.code)
    except Exception:
        # One attempt must not keep the others from being looked at; its claim lapses.
        _log.exception("payment_look_failed", attempt=attempt.id)
