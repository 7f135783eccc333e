"""What an operator may set about the API; plain values, given by the composition root."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from pydantic import SecretStr

from schemas.contacts import PhonePlan
from schemas.quantities import MICRO_PER_UNIT

# Engineering tokens that one operator may ask for in a day: a crew's round, not a business.
ENGINEERING_PER_DAY: Mapping[str, int] = {"desk": 10, "field": 40, "supervisor": 40, "admin": 40}


@dataclass(frozen=True, slots=True)
class Partner:
    """A bank, wallet or aggregator. `code` names its channel in the ledger for ever.

    `keys`: its signing secrets (`whsec_` and base64); while they change, the new one and the old.
    """

    code: str
    name: str
    keys: tuple[SecretStr, ...]


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Limits of one installation.

    `min_payment_micro`, `max_payment_micro`: what a channel may take for one payment.
    `engineering_per_day`: requests for engineering tokens by role; none where it is not named.
    `body_limit_bytes`: no request of this contract comes near it but a partner's daily file and an
    import, which have `file_limit_bytes`.
    `business_zone`: where a partner's business date begins and ends; `currency`: of a payment for a
    meter that nobody has.
    `requests_per_minute`: of one caller; `requests_per_minute_of_address`: of one address, behind
    which may stand a bank or a whole office.
    """

    engineering_per_day: Mapping[str, int] = field(default_factory=lambda: ENGINEERING_PER_DAY)
    min_payment_micro: int = 1 * MICRO_PER_UNIT
    max_payment_micro: int = 100_000 * MICRO_PER_UNIT
    body_limit_bytes: int = 64 * 1024
    file_limit_bytes: int = 8 * 1024 * 1024
    business_zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("Africa/Nouakchott"))
    currency: str = "MRU"
    requests_per_minute: int = 1200
    requests_per_minute_of_address: int = 6000
    return_url: str | None = None
    phone_plan: PhonePlan = field(default_factory=PhonePlan)
    streams: int = 500
    streams_per_caller: int = 4
    streams_poll_s: float = 1.0
    streams_heartbeat_s: float = 15.0
