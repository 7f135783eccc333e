"""What to write so that a ledger that is never edited agrees with the ideal postings.

Law: after writing the answer, the net legs and the net energy of each key equal those of the ideal
posting of that key, or zero where there is none; every entry sums to zero; settling again gives
nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from credit_engine.outcome import Legs, Posting


@dataclass(frozen=True, slots=True)
class Posted:
    """`id`: the transaction that first posted `key`. `legs`, `energy_wh`: the net of that one and
    of all corrections that point to it.
    """

    id: int
    key: str
    legs: Legs
    energy_wh: int = 0


@dataclass(frozen=True, slots=True)
class New:
    posting: Posting


@dataclass(frozen=True, slots=True)
class Correction:
    """A new entry that points to `corrects`. `posting` is what the key now stands for; None: the
    posting is reversed, for the facts of today do not give it.
    """

    corrects: int
    key: str
    legs: Legs
    energy_wh: int
    posting: Posting | None


def settle(posted: Sequence[Posted], ideal: Iterable[Posting]) -> tuple[Correction | New, ...]:
    """The entries to write: reversals first, then the rest in the order of `ideal`.

    `posted`: every key posted since the position that gave `ideal` (energy after its instant,
    all other kinds at or after it), each once.
    """
    by_key = {entry.key: entry for entry in posted}
    postings = list(ideal)
    wanted = {posting.key for posting in postings}
    entries: list[Correction | New] = [
        Correction(entry.id, entry.key, _difference((), entry.legs), -entry.energy_wh, None)
        for entry in posted
        if entry.key not in wanted and (_difference((), entry.legs) or entry.energy_wh)
    ]
    for posting in postings:
        entry = by_key.get(posting.key)
        if entry is None:
            entries.append(New(posting))
            continue
        legs = _difference(posting.legs, entry.legs)
        energy_wh = posting.energy_wh - entry.energy_wh
        if legs or energy_wh:
            entries.append(Correction(entry.id, entry.key, legs, energy_wh, posting))
    return tuple(entries)


def _difference(wanted: Legs, present: Legs) -> Legs:
    """Per ledger account what is missing to get from `present` to `wanted`; no zero legs."""
    if wanted == present:
        return ()
    missing = dict(wanted)
    for account, micro in present:
        missing[account] = missing.get(account, 0) - micro
    return tuple((account, micro) for account, micro in missing.items() if micro)
