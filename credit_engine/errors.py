"""What the rating contract refuses.

CreditError.code is one of
  bad_input        a scenario, tariff or account that is not in the form of the contract
  late_fact        a fact lies before the position: rate again from an older position
  unknown_top_up   a reversal names a top-up that is not among the facts
  top_up_conflict  one top-up id with two contents
  reversal_conflict  two reversals of one top-up, or one before its top-up
  exchange_conflict  two exchanges at one instant, or one not after the opening
"""

from schemas.errors import DomainError


class CreditError(DomainError):
    """A fact, term or amount that the engine refuses.

    `facts`: the offending fact objects, so that whoever read them can name them by their place.
    """

    def __init__(self, code: str, message: str, facts: tuple[object, ...] = ()) -> None:
        super().__init__(code, message)
        self.facts = facts
