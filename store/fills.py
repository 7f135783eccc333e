"""Late readings that fill a gap from its older end: the way of `store.steady` for these.

A meter that was away says its newest reading first and then its buffer, and what waited at the
broker is overtaken by what comes now (ADR 0032). Each such reading divides an interval that was
debited over the gap: that debit is reversed, and those of its parts stand instead (ADR 0033). The
account's balance, register and counts stay as they are.

What is known of a gap is a row of `GAP`, valid as long as the lane of its meter, and only where
between its two readings nothing happened but consumption, inside one cell and block, with a balance
above zero. Anything else is left to `store.ingest`, which knows all rules.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from psycopg import Connection

from credit_engine.days import DAY_MS
from credit_engine.steady import (
    STEADY,
    TAXES_MAX,
    Debit,
    Integers,
    Marks,
    Rows,
    Steady,
    Taken,
    reopen,
    taxes_due,
)
from credit_engine.steady import take as rate
from store import binary, steady_rows
from store.binary import Int8s, Packed
from store.lanes import Lanes, Stale, whole
from store.sql import query
from store.terms import TermsCache

# How much older than the newest reading a gap may begin: what came since is summed.
KNOWN_SINCE_MS = 2 * DAY_MS

# A gap between two counters of one boot. `steady`: the account at its older end, as its parts are
# rated. `micro`: the balance at its newer end, in the order of instants. `held_boot`, `held_seq`:
# up to there all of the meter is held, and no receipt reaches beyond it.
GAP = np.dtype([
    *((name, np.int64) for name in (
        "id", "boot", "seq", "before_seq", "before_ms", "before_wh", "micro", "pricing_id",
        "local_day", "held_boot", "held_seq")),
    # Nothing older is missing; nothing else is missing.
    ("first", np.bool_),
    ("only", np.bool_),
    ("steady", STEADY),
], align=True)  # fmt: skip
# A debit that takes the place of a reversed one; `nth`: of the meters. `lines`: of each tax the
# base, what is due on it, and the amount.
PART = np.dtype([
    *((name, np.int64) for name in (
        "nth", "account_id", "from_ms", "at_ms", "to_wh", "energy_wh", "position_wh",
        "balance_micro", "pricing_id", "local_day", "charge_micro")),
    ("amounts", np.int64, (2 + TAXES_MAX,)),
    ("lines", np.int64, (TAXES_MAX, 3)),
])  # fmt: skip


class Late(NamedTuple):
    """A reading behind the newest of its meter, which has a lane."""

    number: str
    boot: int
    seq: int


class _Found(NamedTuple):
    """A row of `debited_gaps`: the gap that a late reading falls into, with the debit over it."""

    # Of the reading, from 1 on.
    place: int
    gap_id: int
    boot: int
    seq: int
    before_seq: int
    oldest_id: int
    held_boot: int
    held_seq: int
    only: bool
    micro: int
    terms_revision: int
    amounts: Sequence[int]
    explanation: Mapping[str, Any]


def is_next(late: Late, gap: bytes | None) -> bool:
    """Whether a reading is the oldest that this gap misses."""
    if gap is None:
        return False
    (row,) = np.frombuffer(gap, GAP)
    return bool(row["boot"] == late.boot and row["seq"] + 1 == late.seq)


def load(conn: Connection, terms: TermsCache, lanes: Lanes, late: Sequence[Late]) -> None:
    """Read the gaps that these readings fall into, those that are as simple as said above."""
    for each in late:
        lanes.gaps.pop(each.number, None)
    places = [lanes.known[each.number] for each in late]
    of = lanes.rows[places]
    from_ms = of["newest_ms"] - KNOWN_SINCE_MS
    found = conn.execute(
        query("debited_gaps"),
        {
            "meters": Int8s(of["meter_id"].tolist()),
            "accounts": Int8s(of["account_id"].tolist()),
            "boots": Int8s([each.boot for each in late]),
            "seqs": Int8s([each.seq for each in late]),
            "from_ms": Int8s(from_ms.tolist()),
            "first_ms": int(from_ms.min()),
        },
        prepare=False,  # planned for this range, see store.facts.stored_facts
    ).fetchall()
    begun: list[tuple[_Found, Steady]] = []
    for row in map(_Found._make, found):
        steady = _before(conn, terms, of[row.place - 1], row)
        if steady is not None:
            begun.append((row, steady))
    numbered = lanes.pricings.numbers(conn, {id(s.pricing): s.pricing for _, s in begun})
    gaps = np.array([_gap(row, numbered[id(s.pricing)], s) for row, s in begun], GAP)
    for nth in np.flatnonzero(_rated_so(gaps, [row.amounts for row, _ in begun])):
        lanes.gaps[late[begun[nth][0].place - 1].number] = gaps[nth].tobytes()


def _before(conn: Connection, terms: TermsCache, lane: Any, found: _Found) -> Steady | None:
    agreed = terms.get(conn, int(lane["account_id"]), found.terms_revision)
    said, power = found.explanation, int(lane["steady"]["max_power_w"])
    from_ = said["registers"]["from"]
    bases = tuple(line["base_micro"] - said["charge_micro"] for line in said["taxes"])
    debit = Debit(from_["at_ms"], from_["wh"], said["position_wh"], bases)
    balance_micro = found.micro - found.amounts[0]
    return reopen(agreed.tariff, debit, balance_micro, None if power < 0 else power)


def _gap(found: _Found, pricing: int, steady: Steady) -> tuple[Any, ...]:
    to = found.explanation["registers"]["to"]
    day = binary.day_number(steady.pricing.cell.day.date)
    return (
        found.gap_id, found.boot, found.seq, found.before_seq, to["at_ms"], to["wh"], found.micro,
        pricing, day, found.held_boot, found.held_seq, found.oldest_id == found.gap_id, found.only,
        steady.row,
    )  # fmt: skip


def _rated_so(gaps: Rows, amounts: Iterable[Sequence[int]]) -> Marks:
    """Whether the debits over these gaps are what they would be now; `amounts`: theirs."""
    rated = _rest(gaps)
    fits = rated.taken & (rated.energy_wh != 0)
    for place, posted in enumerate(amounts):
        legs = rated.amounts[place, : 2 + gaps["steady"]["taxes"][place]].tolist()
        fits[place] &= legs == posted
    return np.asarray(fits)


def _rest(gaps: Rows) -> Taken:
    """What is left of the gaps, as one interval each."""
    return rate(gaps["steady"].copy(), gaps["before_ms"], gaps["before_wh"])


def _closed(gaps: Rows) -> Marks:
    return np.asarray(gaps["seq"] + 1 == gaps["before_seq"])


def begin(
    kept: Lanes, numbers: Sequence[str], lanes: Rows, places: Iterable[int]
) -> "Filling | None":
    """For those at `places` of meters and their lanes, which stand beside each other; None where no
    gap of them is known.
    """
    known = [place for place in places if numbers[place] in kept.gaps]
    return Filling(kept, numbers, lanes, known) if known else None


class Filling:
    """The gaps of the meters of one batch, filled and written at once. They are copies, and so are
    the lanes: as they were before the batch.
    """

    def __init__(self, kept: Lanes, numbers: Sequence[str], lanes: Rows, places: list[int]) -> None:
        self._pricings = kept.pricings
        self._numbers = [numbers[place] for place in places]
        self._lanes = lanes.take(places)
        self._begun = np.frombuffer(b"".join(kept.gaps[number] for number in self._numbers), GAP)
        self._gaps = self._begun.copy()
        self._of = np.full(len(numbers), -1)
        self._of[places] = np.arange(len(places))
        self._moved = np.zeros(len(places), np.bool_)
        self._parts: list[Rows] = []

    def take(
        self, at: Integers, boot: Integers, seq: Integers, ts_ms: Integers, wh: Integers
    ) -> tuple[Marks, Marks]:
        """Of one reading each of the meters at the places `at`: whether it fills a gap, and whether
        nothing is missing any more.
        """
        nth = self._of[at]
        gaps = self._gaps.take(nth, mode="clip")
        fit = (nth >= 0) & (boot == gaps["boot"]) & (seq == gaps["seq"] + 1)
        fit &= (seq < gaps["before_seq"]) & (ts_ms < gaps["before_ms"])
        steady = gaps["steady"]
        taken = rate(steady, ts_ms, wh)
        filled = fit & taken.taken & _rest(gaps).taken
        gaps["seq"] = seq
        places = np.flatnonzero(filled)
        nth, gaps = nth[places], gaps.take(places)
        whole(self._gaps)[nth] = whole(gaps)
        self._moved[nth] = True
        self._add(nth, gaps, taken, places, ts_ms[places], wh[places])
        none_missing = filled.copy()
        none_missing[places] = gaps["only"] & _closed(gaps)
        return filled, none_missing

    def _add(
        self,
        nth: Integers,
        gaps: Rows,
        rated: Taken,
        places: Integers,
        at_ms: Integers,
        wh: Integers,
    ) -> None:
        """Parts that end at these readings; `places`: theirs in `rated`."""
        charged = rated.energy_wh[places] != 0
        nth, gaps, places = nth[charged], gaps[charged], places[charged]
        lanes, steady = self._lanes.take(nth), gaps["steady"]
        # The ledger's balances run on from that of the account as it is now.
        balance = lanes["steady"]["balance_micro"] + steady["balance_micro"] - gaps["micro"]
        parts = np.zeros(len(nth), PART)
        parts["nth"], parts["account_id"] = nth, lanes["account_id"]
        parts["balance_micro"] = balance
        parts["pricing_id"], parts["local_day"] = gaps["pricing_id"], gaps["local_day"]
        energy, bases = rated.energy_wh[places], rated.bases[places]
        parts["from_ms"], parts["at_ms"] = rated.from_ms[places], at_ms[charged]
        parts["to_wh"], parts["energy_wh"] = wh[charged], energy
        parts["position_wh"] = rated.position_wh[places]
        parts["charge_micro"] = energy * steady["price_micro_per_wh"]
        parts["amounts"] = rated.amounts[places]
        parts["lines"] = np.stack(
            (bases, taxes_due(steady, bases), rated.amounts[places, 2:]), axis=2
        )
        self._parts.append(parts)

    # --- writing ----------------------------------------------------------------------------

    def write(self, conn: Connection, now_ms: int) -> None:
        """Debits and gaps, in a transaction that holds the accounts. Errors: Stale."""
        moved = np.flatnonzero(self._moved)
        if not len(moved):
            return
        begun, gaps = self._begun.take(moved), self._gaps.take(moved)
        self._reverse(conn, begun, self._lanes.take(moved), now_ms)
        # Moved up to the newer end by what is left.
        ended, everything = gaps.copy(), np.arange(len(gaps))
        rated = rate(ended["steady"], gaps["before_ms"], gaps["before_wh"])
        self._add(moved, ended, rated, everything, gaps["before_ms"], gaps["before_wh"])
        parts = np.concatenate(self._parts)
        parts = parts[np.lexsort((parts["at_ms"], parts["account_id"]))]
        with conn.cursor().copy(query("copy_ledger")) as copy:
            copy.write(b"".join((binary.COPY_HEAD, *self._rows(parts, now_ms), binary.COPY_TAIL)))
        ends = np.column_stack((
            gaps["id"], begun["boot"], begun["seq"], gaps["seq"], gaps["steady"]["at_ms"],
            _closed(gaps).astype(np.int64),
        ))  # fmt: skip
        of = {"now_ms": now_ms, "count": len(ends), "ends": Packed(ends)}
        if conn.execute(query("fill_gaps"), of).rowcount != len(ends):
            raise Stale

    def _rows(self, parts: Rows, now_ms: int) -> Iterable[bytes]:
        """Each account's in their order: all of a gap are of one pricing."""
        for pricing_id in np.unique(parts["pricing_id"]):
            of = parts[parts["pricing_id"] == pricing_id]
            numbered = self._pricings.of(int(pricing_id))
            amounts = of["amounts"][:, : len(numbered.legs)]
            recorded = np.full(len(of), binary.microseconds(now_ms))
            numbers = np.column_stack((
                of["account_id"], of["at_ms"], recorded, of["energy_wh"], of["local_day"],
                amounts[:, 0], of["balance_micro"], of["from_ms"],
            ))  # fmt: skip
            words = np.column_stack((
                of["from_ms"], of["to_wh"] - of["energy_wh"], of["at_ms"], of["to_wh"],
                of["from_ms"], of["at_ms"], of["position_wh"], of["energy_wh"], of["charge_micro"],
                of["charge_micro"], of["lines"][:, : len(numbered.legs) - 2].reshape(len(of), -1),
            ))  # fmt: skip
            meters = [self._numbers[nth] for nth in of["nth"].tolist()]
            yield steady_rows.postings(numbered, meters, numbers, amounts, words)

    def _reverse(self, conn: Connection, begun: Rows, lanes: Rows, now_ms: int) -> None:
        """The debits over the gaps as they were."""
        steady = begun["steady"]
        balance = lanes["steady"]["balance_micro"] + steady["balance_micro"] - begun["micro"]
        debits = np.column_stack((
            lanes["account_id"], steady["at_ms"], begun["before_ms"], balance,
        ))[steady["wh"] != begun["before_wh"]]  # fmt: skip
        debits = debits[np.argsort(debits[:, 0])]
        of = {"now_ms": now_ms, "count": len(debits), "debits": Packed(debits)}
        if conn.execute(query("reverse_debits"), of).rowcount != len(debits):
            raise Stale

    def held(self) -> dict[str, tuple[int, int]]:
        """Of meters that miss something older than what was filled: all is held up to there."""
        return {
            self._numbers[place]: (int(gap["held_boot"]), int(gap["held_seq"]))
            for place in np.flatnonzero(self._moved & ~self._gaps["first"])
            for gap in (self._gaps[place],)
        }

    def kept(self) -> dict[str, bytes | None]:
        """The gaps as they are now, by meter; None: it is closed."""
        closed = _closed(self._gaps)
        return {
            self._numbers[place]: None if closed[place] else self._gaps[place].tobytes()
            for place in np.flatnonzero(self._moved).tolist()
        }
