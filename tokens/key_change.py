"""Key change sets: the tokens that move a meter to another key (IEC 62055-41 6.2.6 to 6.2.9).

EA07: a pair, or a triplet that also carries the new SGC. EA11: four tokens. All are encrypted
under the old key and may be entered in any order.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tokens import apdu, keys, tid
from tokens.apdu import METER_SPECIFIC, Apdu
from tokens.errors import TokenError
from tokens.keys import DecoderKey, KeyAttributes

FIRST, SECOND, THIRD, FOURTH = 3, 4, 8, 9
BASE_DATES = tuple(sorted(tid.BASE_DATES_MS))


@dataclass(frozen=True, slots=True)
class Assembled:
    """What a complete set says. `sgc` is None after a pair, which does not carry it."""

    decoder_key: DecoderKey
    kt: int
    krn: int
    ken: int
    ti: int
    rollover: bool
    sgc: int | None


def key_change_set(
    old: KeyAttributes, new: KeyAttributes, new_key: DecoderKey, *, triplet: bool = False
) -> tuple[Apdu, ...]:
    """The tokens, in clear, that replace the key of a meter that now holds `old`.

    `triplet` asks for the third EA07 token, which meters before the 2014 edition do not know.
    """
    if old.ea != new.ea or new_key.ea != new.ea:
        raise TokenError(
            "key_mismatch",
            f"A meter cannot change its encryption algorithm (EA{old.ea:02} to EA{new.ea:02}) "
            "by token; keep the EA of the meter.",
        )
    if new == old:
        raise TokenError(
            "key_mismatch", "The key change changes nothing; name the attribute that is to change."
        )
    if new.base_date < old.base_date:
        raise TokenError(
            "key_mismatch",
            f"A meter cannot go back from base date {old.base_date} to {new.base_date}; "
            "keep the base date or move it forward.",
        )
    octets = new_key.reveal()
    sections = [int.from_bytes(octets[at : at + 4], "big") for at in range(0, len(octets), 4)]
    misty1 = new.ea == apdu.MISTY1
    first = {
        "kenho": new.ken >> 4,
        "krn": new.krn,
        "ro": int(new.base_date != old.base_date),
        "third_kct": int(triplet and not misty1),
        "kt": new.kt,
        "nkho": sections[0],
    }
    second = {"kenlo": new.ken & 0xF, "ti": int(new.ti), "nklo": sections[-1]}
    tokens = {FIRST: first, SECOND: second}
    if misty1:
        tokens[THIRD] = {"sgclo": int(new.sgc) & 0xFFF, "nkmo2": sections[1]}
        tokens[FOURTH] = {"sgcho": int(new.sgc) >> 12, "nkmo1": sections[2]}
    elif triplet:
        tokens[THIRD] = {"sgc": int(new.sgc)}
    return tuple(Apdu(METER_SPECIFIC, number, fields) for number, fields in tokens.items())


def missing_sections(sections: Mapping[int, Mapping[str, int]], ea: int) -> tuple[int, ...]:
    """Subclasses still awaited, given the fields of those that came.

    Under EA07 only the first section tells whether a third belongs to the set.
    """
    needed = [FIRST, SECOND]
    if ea == apdu.MISTY1:
        needed += [THIRD, FOURTH]
    elif sections.get(FIRST, {}).get("third_kct"):
        needed.append(THIRD)
    return tuple(number for number in needed if number not in sections)


def assemble(sections: Mapping[int, Mapping[str, int]], ea: int) -> Assembled:
    """The key and attributes of a complete set."""
    first, second = sections[FIRST], sections[SECOND]
    sgc: int | None = None
    words = [first["nkho"], second["nklo"]]
    if ea == apdu.MISTY1:
        third, fourth = sections[THIRD], sections[FOURTH]
        words[1:1] = [third["nkmo2"], fourth["nkmo1"]]
        sgc = fourth["sgcho"] << 12 | third["sgclo"]
    elif first["third_kct"]:
        sgc = sections[THIRD]["sgc"]
    return Assembled(
        decoder_key=DecoderKey(b"".join(word.to_bytes(4, "big") for word in words)),
        kt=first["kt"],
        krn=first["krn"],
        ken=first["kenho"] << 4 | second["kenlo"],
        ti=second["ti"],
        rollover=bool(first["ro"]),
        sgc=sgc,
    )


def is_permitted(old_kt: int, new_kt: int) -> bool:
    """Whether a meter may change from one key type to another.

    Only the maker's own key leads to the maker's key: what everybody may fall back to would undo
    the key change. The full matrix of the standard was not available (sts.md, open points).
    """
    return new_kt != keys.DITK or old_kt == keys.DITK
