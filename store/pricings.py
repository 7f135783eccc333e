"""The numbers of pricings in the database: what lean debits, and parts of debits, are priced by."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson
from psycopg import Connection

from credit_engine.steady import Pricing
from store.ledger import numbers_of_accounts
from store.sql import query


class Numbered(NamedTuple):
    """A pricing with the numbers of `Pricing.accounts`."""

    pricing: Pricing
    legs: Sequence[int]


@dataclass(slots=True)
class Pricings:
    """What one worker knows of them."""

    _known: dict[bytes, int] = field(default_factory=dict)
    _of: dict[int, Numbered] = field(default_factory=dict)

    def numbers(self, conn: Connection, pricings: Mapping[int, Pricing]) -> dict[int, int]:
        """By the same keys. A new number is given once, in a commit of its own: what rates by it
        may be rolled back.
        """
        return {key: self._number(conn, pricing) for key, pricing in pricings.items()}

    def _number(self, conn: Connection, pricing: Pricing) -> int:
        cell = pricing.cell
        legs = numbers_of_accounts(conn, pricing.accounts)
        body: Mapping[str, object] = {
            "valid_from": cell.version.valid_from.isoformat(),
            "period": cell.position_key[0],
            "method": cell.band.method,
            "taxes": [
                {"name": tax.name, "ppm": tax.ppm, "included": tax.included}
                for _, tax in cell.energy_taxes
            ],
        }
        said = orjson.dumps([cell.band.name, pricing.price_micro_per_wh, legs, body])
        sha256 = hashlib.sha256(said).digest()
        found = self._known.get(sha256)
        if found is not None:
            return found
        conn.execute(
            query("add_pricing"),
            {
                "sha256": sha256,
                "band": cell.band.name,
                "price": pricing.price_micro_per_wh,
                "legs": legs,
                "body": orjson.dumps(body).decode(),
            },
        )
        row = conn.execute(query("find_pricing"), {"sha256": sha256}).fetchone()
        assert row is not None, "it was there or was added"
        self._known[sha256] = row[0]
        self._of[row[0]] = Numbered(pricing, legs)
        return int(row[0])

    def of(self, number: int) -> Numbered:
        """One with this number: as good as any other with it, but for its hours."""
        return self._of[number]
