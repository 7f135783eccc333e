"""Class 2 tokens that carry a TID: settings, clearing, tamper (IEC 62055-41 6.2.5 onwards)."""

from collections.abc import Mapping

from tokens import amount, apdu
from tokens.apdu import Apdu
from tokens.errors import TokenError

# SetMaximumPowerLimit and SetMaximumPhasePowerUnbalanceLimit are given in watts and coded like
# amounts, so a limit is rounded up, never down.
WATT_FIELDS = ("mpl", "mppul")
SUBCLASSES = (0, 1, 2, 5, 6, 7, 10)
KEY_CHANGE_SUBCLASSES = (3, 4, 8, 9)
# What is no setting: who issues gives RND and TID beside the fields, and padding is zero.
FRAME_FIELDS = frozenset({"rnd", "tid", "pad"})


def management(subclass: int, fields: Mapping[str, int], *, tid: int, rnd: int) -> Apdu:
    """The APDU of class 2 with `fields` in natural units.

    0 mpl (W); 1 register; 2 rate; 5 none; 6 mppul (W); 7 wmf; 10 index and value.
    """
    if subclass not in SUBCLASSES:
        reason = "is part of a key change set" if subclass in KEY_CHANGE_SUBCLASSES else "is none"
        raise TokenError(
            "unsupported_subclass",
            f"Management subclass {subclass} {reason}; use {', '.join(map(str, SUBCLASSES))}.",
        )
    # A TID among the settings would take the place of the one that KEN was checked against.
    if framed := FRAME_FIELDS & set(fields):
        raise TokenError(
            "field_out_of_range",
            f"Field {', '.join(sorted(framed))} is no setting of a management token: "
            "whoever issues it fills it; leave it out.",
        )
    if "register" in fields and fields["register"] not in apdu.REGISTERS:
        raise TokenError(
            "field_out_of_range",
            f"ClearCredit knows registers 0 to 7 and 65535 for all, not {fields['register']}.",
        )
    coded = {
        name: amount.encode_amount(value) if name in WATT_FIELDS else value
        for name, value in fields.items()
    }
    return Apdu(apdu.METER_SPECIFIC, subclass, {"rnd": rnd, "tid": tid, **coded})


def settings_of(token: Apdu) -> dict[str, int]:
    """The fields of a management token in natural units, without RND, TID and padding."""
    return {
        name: amount.decode_amount(value) if name in WATT_FIELDS else value
        for name, value in token.fields.items()
        if name not in FRAME_FIELDS
    }
