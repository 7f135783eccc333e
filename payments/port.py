"""The one form that every channel takes here: start, confirm, check, understand a notification."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import SecretStr

from store.payment_attempts import Attempt
from store.payment_words import Word

# passcode: the payer gives a code that the channel made; page: the payer goes on at the channel's
# own page; cash: it is counted at a desk.
Kind = Literal["passcode", "page", "cash"]


@dataclass(frozen=True, slots=True)
class Method:
    """A way to pay as customers see it; `code` names its ledger account for ever."""

    code: str
    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Started:
    """The channel knows the order. `going_on`: where the payer goes on, as JSON; `lapses_s`: for
    how long. `pays_alone`: from now on money may move without us.
    """

    order_reference: str | None
    going_on: Mapping[str, object]
    lapses_s: int
    pays_alone: bool


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What the payer gives to confirm. The passcode is passed on once and kept nowhere."""

    msisdn: str
    passcode: SecretStr


@dataclass(frozen=True, slots=True)
class Notification:
    """What was sent to us, to the byte. `source`: the address that it came from."""

    source: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Notice:
    """A notification understood. `order`: our id of the attempt, or the channel's name for it; a
    word of None is of no consequence. `proven`: nobody but the channel can have said it; else it is
    only believed where the channel cannot be asked.
    """

    order: str
    word: Word | None
    proven: bool


class Connector(Protocol):
    """One channel. Every call may be repeated; none of them raises for what the channel does."""

    @property
    def method(self) -> Method: ...

    @property
    def checks(self) -> bool:
        """Whether the channel can be asked about an order."""
        ...

    @property
    def timeout_s(self) -> int:
        """How long one call takes at most."""
        ...

    def start(self, attempt: Attempt) -> Started | Word:
        """Make the order known; a Word says why not (`failed`) or that nobody answered."""
        ...

    def confirm(self, attempt: Attempt, given: Confirmation) -> Word:
        """Ask the channel to take the money."""
        ...

    def check(self, attempt: Attempt) -> Word:
        """What the channel says of the order now."""
        ...

    def understand(self, notification: Notification) -> Notice:
        """Errors: Unproven, nobody knows who sent it; DomainError `notification_malformed`."""
        ...

    def close(self) -> None:
        """End the connections."""
        ...
