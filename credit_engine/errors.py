"""What the rating contract refuses.

CreditError.code is one of
  bad_input        a scenario, tariff or account that is not in the form of the contract
  late_fact        a fact lies before the position: rate again from an older position
  unknown_top_up   a reversal names a top-up that is not among the facts
  top_up_conflict  one top-up id with two contents
  reversal_conflict  two reversals of one top-up, or one before its top-up
  no_tariff        no tariff version is in force at the instant of a quote
  free_energy      the last block is free, so no amount bounds the energy of a quote
  adjustment_conflict  one adjustment id with two contents
  exchange_conflict  two exchanges at one instant, or one not after the opening
"""

from schemas.errors import DomainError


class CreditError(DomainError):
    """A fact, term or amount that the engine refuses.

    `binds`: the objects (facts, versions) and their fields that the broken rule binds, so that
    whoever read them can name them by their place.
    """

    def __init__(self, code: str, message: str, *binds: tuple[object, str]) -> None:
        super().__init__(code, message)
        self.binds = binds
