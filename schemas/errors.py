"""The root of every refusal that this system can explain.

DomainError
├── credit_engine.errors.CreditError     a fact, term or amount that the rating contract refuses
├── tokens.errors.TokenError             a number, key or token that IEC 62055-41 refuses
├── schemas.telemetry.PayloadError       bytes from a device that the MQTT contract refuses
├── store.errors.StoreError              NotFound, Conflict, Unavailable
└── Unproven                             a message whose sender did not prove who he is
"""


class DomainError(Exception):
    """A refusal with a stable `code` for programs and a sentence for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Unproven(DomainError):  # noqa: N818 - a state of the world, as in HTTP
    """A message whose sender did not prove who he is: nothing in it is believed."""
