"""What an operator may set about the API; plain values, given by the composition root."""

from dataclasses import dataclass

from pydantic import SecretStr

from schemas.quantities import MICRO_PER_UNIT


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
    `body_limit_bytes`: no request of this contract comes near it.
    """

    min_payment_micro: int = 1 * MICRO_PER_UNIT
    max_payment_micro: int = 100_000 * MICRO_PER_UNIT
    body_limit_bytes: int = 64 * 1024
