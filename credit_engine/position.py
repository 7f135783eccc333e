"""The small state that lets a reading be rated without the readings before it.

A `Position` (anchor, checkpoint) is the account just after the consumption up to an accepted
reading and before any other posting at that same instant. Stored positions affect cost, never
meaning: any one of them and all facts since give the same postings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from credit_engine.errors import CreditError
from credit_engine.terms import Installation, Terms

# Before every fact (the instant of 0001-01-01 UTC): a genesis refuses nothing as late.
GENESIS_MS = -62_135_596_800_000


@dataclass(frozen=True, slots=True)
class Totals:
    """What the postings so far add up to, as far as a later posting can need it.

    `consumed_wh`: (local month or year, band name) -> Wh. `taxed_micro`: (local month, tax name,
    ppm, included) -> µ of charges. Periods that are over are dropped when a position is taken.
    Never changed in place.
    """

    balance_micro: int = 0
    debt_micro: int = 0
    cap_month: str = ""
    cap_used_micro: int = 0
    consumed_wh: Mapping[tuple[str, str], int] = field(default_factory=dict)
    taxed_micro: Mapping[tuple[str, str, int, bool], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Position:
    """`register_at_ms`, `register_wh`: what the next reading is compared to (section 2, `p`).

    `emergency_in_use`, `reconnect_armed`: as of the instants before `at_ms`; the instant itself
    is judged after all its postings, which come with the next call.
    """

    at_ms: int
    installation: Installation
    register_at_ms: int
    register_wh: int
    totals: Totals
    emergency_in_use: bool = False
    reconnect_armed: bool = False

    def to_json(self) -> dict[str, Any]:
        """Integers, strings and null (no capacity) only; the inverse of `from_json`."""
        totals, meter = self.totals, self.installation
        return {
            "at_ms": self.at_ms,
            "installation": {
                "meter_id": meter.meter_id,
                "modulus_wh": meter.modulus_wh,
                "opened_at_ms": meter.opened_at_ms,
                "opening_wh": meter.opening_wh,
                "max_power_w": meter.max_power_w,
            },
            "register_at_ms": self.register_at_ms,
            "register_wh": self.register_wh,
            "balance_micro": totals.balance_micro,
            "debt_micro": totals.debt_micro,
            "cap_month": totals.cap_month,
            "cap_used_micro": totals.cap_used_micro,
            "consumed_wh": [[*key, wh] for key, wh in sorted(totals.consumed_wh.items())],
            "taxed_micro": [
                [month, name, ppm, int(included), base]
                for (month, name, ppm, included), base in sorted(totals.taxed_micro.items())
            ],
            "emergency_in_use": int(self.emergency_in_use),
            "reconnect_armed": int(self.reconnect_armed),
        }

    def keys(self) -> tuple[object, ...]:
        """What `numbers` are, in their order: None for the register, then keys of the totals."""
        totals = self.totals
        return (None, *sorted(totals.consumed_wh), *sorted(totals.taxed_micro))

    def numbers(self) -> list[int]:
        """What a steady reading moves beside the instant and the balance (credit_engine.steady)."""
        totals = self.totals
        return [
            self.register_wh,
            *(wh for _, wh in sorted(totals.consumed_wh.items())),
            *(base for _, base in sorted(totals.taxed_micro.items())),
        ]

    def moved(self, at_ms: int, balance_micro: int, numbers: Sequence[int]) -> "Position":
        """What steady readings made of it; `numbers` as the method of that name lays them out."""
        totals = self.totals
        register_wh, *rest = numbers
        consumed, taxed = sorted(totals.consumed_wh), sorted(totals.taxed_micro)
        if len(rest) != len(consumed) + len(taxed):
            raise ValueError("these are not the numbers of this position")
        return Position(
            at_ms,
            self.installation,
            at_ms,
            register_wh,
            Totals(
                balance_micro,
                totals.debt_micro,
                totals.cap_month,
                totals.cap_used_micro,
                dict(zip(consumed, rest, strict=False)),
                dict(zip(taxed, rest[len(consumed) :], strict=True)),
            ),
            self.emergency_in_use,
            self.reconnect_armed,
        )

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> "Position":
        totals = Totals(
            balance_micro=stored["balance_micro"],
            debt_micro=stored["debt_micro"],
            cap_month=stored["cap_month"],
            cap_used_micro=stored["cap_used_micro"],
            consumed_wh={(period, band): wh for period, band, wh in stored["consumed_wh"]},
            taxed_micro={
                (month, name, ppm, bool(included)): base
                for month, name, ppm, included, base in stored["taxed_micro"]
            },
        )
        return Position(
            at_ms=stored["at_ms"],
            installation=Installation(**stored["installation"]),
            register_at_ms=stored["register_at_ms"],
            register_wh=stored["register_wh"],
            totals=totals,
            emergency_in_use=bool(stored["emergency_in_use"]),
            reconnect_armed=bool(stored["reconnect_armed"]),
        )


def genesis(terms: Terms, installation: Installation) -> Position:
    """The position before every fact. Errors: the account is activated after the opening."""
    if terms.activated_at_ms > installation.opened_at_ms:
        raise CreditError(
            "bad_input",
            "the account is activated after the opening: activate it at its first "
            "meter's opening or before",
            (terms, "activated_at"),
            (installation, "opened_at"),
        )
    return Position(
        at_ms=GENESIS_MS,
        installation=installation,
        register_at_ms=installation.opened_at_ms,
        register_wh=installation.opening_wh,
        totals=Totals(debt_micro=terms.debt.outstanding_micro),
    )
