"""Refusals of the store.

StoreError
├── NotFound       no such row, or not yours
├── Conflict       the same key with another body, or an operation that the state does not allow
├── Unavailable    the database is away; try again
├── TooManyAttempts  a bound on tries is reached; try again later
├── SettlementError  the ledger and the engine disagree: a defect of ours
└── MigrationError the database is not the one that this code expects
"""

from schemas.errors import DomainError


class StoreError(DomainError):
    """Root of the store's refusals."""


class NotFound(StoreError):  # noqa: N818 - a state of the world, as in HTTP
    """No such row for this caller."""

    def __init__(self, what: str) -> None:
        super().__init__("not_found", f"{what} was not found")


class Conflict(StoreError):  # noqa: N818 - as above
    """The request contradicts what is already recorded."""


class TooManyAttempts(StoreError):  # noqa: N818 - as above
    """A bound on tries is reached; `retry_after_s` from now it begins anew."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("too_many_attempts", f"wait {retry_after_s} seconds and try again")
        self.retry_after_s = retry_after_s


class MigrationError(StoreError):
    """The schema in the database and the migrations in this package disagree."""

    def __init__(self, message: str) -> None:
        super().__init__("migration", message)


class Unavailable(StoreError):  # noqa: N818 - as above
    """The database cannot be reached or cannot take this now; trying again later is right."""

    def __init__(self, reason: str) -> None:
        super().__init__("unavailable", f"the database is away: {reason}")


class SettlementError(StoreError):
    """The ledger and the engine disagree about an account: a defect of ours, never of the input."""

    def __init__(self, account_id: int, message: str) -> None:
        super().__init__("settlement", f"account {account_id}: {message}")
