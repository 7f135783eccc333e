"""What a worker knows of the terms of accounts."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from psycopg import Connection

from credit_engine.tariff import parse_account, parse_tariff
from credit_engine.terms import Tariff, Terms
from store.binary import Int8s
from store.errors import SettlementError
from store.positions import PositionCache
from store.sql import query


@dataclass(slots=True)
class TermsCache:
    """Parsed terms by account, kept by a worker until the account's revision moves on.

    Accounts whose tariffs read the same share one parsed tariff, and with it its worked-out days;
    those whose terms read the same share these, too.
    """

    limit: int = 200_000
    positions: PositionCache = field(default_factory=PositionCache)
    _terms: dict[int, tuple[int, Terms]] = field(default_factory=dict)
    _tariffs: dict[bytes, Tariff] = field(default_factory=dict)
    _agreed: dict[tuple[bytes, str], Terms] = field(default_factory=dict)
    # Digests by tariff and edition, as `terms_of_accounts` has them.
    _shared: dict[tuple[int, str], bytes] = field(default_factory=dict)

    def get(self, conn: Connection, account_id: int, revision: int) -> Terms:
        kept = self._terms.get(account_id)
        if kept is not None and kept[0] == revision:
            return kept[1]
        self._load(conn, {account_id: revision})
        return self._terms[account_id][1]

    def prepare(self, conn: Connection, revisions: Mapping[int, int]) -> None:
        """Load at once what is not known of accounts with these revisions of their terms."""
        missing = {
            account: revision
            for account, revision in revisions.items()
            if self._terms.get(account, (None,))[0] != revision
        }
        if missing:
            self._load(conn, missing)

    def knows(self, tariff: int, edition: str) -> bool:
        """Whether this edition of a tariff was learnt with any account."""
        return (tariff, edition) in self._shared

    def agreed(self, tariff: int, edition: str, terms: str) -> Terms | None:
        """The terms that read so under an edition of a tariff; None for an unknown one."""
        digest = self._shared.get((tariff, edition))
        return None if digest is None else self._parse(digest, terms)

    def _load(self, conn: Connection, revisions: Mapping[int, int]) -> None:
        found = conn.execute(
            query("terms_of_accounts"), {"accounts": Int8s(list(revisions))}
        ).fetchall()
        if len(found) != len(revisions):
            lost = revisions.keys() - {row[0] for row in found}
            raise SettlementError(min(lost), "it has no terms")
        if len(self._terms) + len(revisions) > self.limit:
            self._terms.clear()
        for account_id, agreed in self.learn(found).items():
            self._terms[account_id] = (revisions[account_id], agreed)

    def learn(self, found: Iterable[Sequence[Any]]) -> dict[int, Terms]:
        """The terms by account of rows of `terms_of_accounts`; what they share is kept."""
        parsed: dict[str, bytes] = {}
        learnt: dict[int, Terms] = {}
        for account_id, tariff, agreed, shared, edition in found:
            digest = parsed.get(tariff)
            if digest is None:
                digest = parsed[tariff] = self._parse_tariff(tariff)
            if shared is not None:
                self._shared[shared, edition] = digest
            learnt[account_id] = self._parse(digest, agreed)
        return learnt

    def _parse(self, digest: bytes, agreed: str) -> Terms:
        terms = self._agreed.get((digest, agreed))
        if terms is None:
            if len(self._agreed) >= self.limit:
                self._agreed.clear()
            terms = parse_account(orjson.loads(agreed), self._tariffs[digest])
            self._agreed[digest, agreed] = terms
        return terms

    def _parse_tariff(self, text: str) -> bytes:
        form = orjson.loads(text)
        digest = hashlib.sha256(orjson.dumps(form, option=orjson.OPT_SORT_KEYS)).digest()
        if digest not in self._tariffs:
            self._tariffs[digest] = parse_tariff(form)
        return digest
