"""The token data units: which fields stand in the 44 bits between SubClass and CRC.

One table, read in both directions (IEC 62055-41 6.2). The letter after a row is the weight of its
evidence: A two implementations and published values agree, B one of both, C one source only.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tokens.errors import TokenError, UnsupportedSubclass

CONTENT_BITS = 44
STA = 7
MISTY1 = 11
ALGORITHMS = (STA, MISTY1)

CREDIT = 0
NON_METER_SPECIFIC = 1
METER_SPECIFIC = 2
RESERVED_CLASS = 3

# Currency credit: electricity, water, gas, time.
CURRENCY_SUBCLASSES = (4, 5, 6, 7)


@dataclass(frozen=True, slots=True)
class Field:
    """A named run of bits; `pad` bits are always zero."""

    name: str
    bits: int


@dataclass(frozen=True, slots=True)
class Layout:
    """One row of the table. `ea` 0 stands for every encryption algorithm."""

    cls: int
    subclass: int
    name: str
    fields: tuple[Field, ...]
    ea: int = 0

    def has(self, name: str) -> bool:
        return any(field.name == name for field in self.fields)


# Sections of a decoder key, in key change tokens.
SECRET_FIELDS = frozenset({"nkho", "nklo", "nkmo1", "nkmo2"})


@dataclass(frozen=True, slots=True, repr=False)
class Apdu:
    """One token in clear: class, subclass and the fields of its layout, as raw field values."""

    cls: int
    subclass: int
    fields: Mapping[str, int]

    def __repr__(self) -> str:
        shown = (
            f"{name}={'hidden' if name in SECRET_FIELDS else value}"
            for name, value in self.fields.items()
        )
        return f"<Apdu {self.cls}.{self.subclass} {' '.join(shown)}>"


def _row(cls: int, subclass: int, name: str, fields: str, ea: int = 0) -> Layout:
    split = (field.split(":") for field in fields.split())
    return Layout(cls, subclass, name, tuple(Field(n, int(bits)) for n, bits in split), ea)


LAYOUTS = (
    _row(0, 0, "TransferCredit electricity", "rnd:4 tid:24 amount:16"),  # A
    _row(0, 1, "TransferCredit water", "rnd:4 tid:24 amount:16"),  # A
    _row(0, 2, "TransferCredit gas", "rnd:4 tid:24 amount:16"),  # A; unit B, see AMOUNT_UNITS
    _row(0, 3, "TransferCredit time", "rnd:4 tid:24 amount:16"),  # A; unit B, see AMOUNT_UNITS
    _row(0, 4, "TransferCredit electricity currency", "s_and_e:4 tid:24 amount:16"),  # A
    _row(0, 5, "TransferCredit water currency", "s_and_e:4 tid:24 amount:16"),  # A
    _row(0, 6, "TransferCredit gas currency", "s_and_e:4 tid:24 amount:16"),  # A
    _row(0, 7, "TransferCredit time currency", "s_and_e:4 tid:24 amount:16"),  # A
    _row(1, 0, "InitiateMeterTest/Display, 2-digit maker", "control:36 mfr_code:8"),  # A
    _row(1, 1, "InitiateMeterTest/Display, 4-digit maker", "control:28 mfr_code:16"),  # A
    _row(1, 2, "Extended read (STS 202-5)", "control:36 mfr_code:8"),  # B
    _row(2, 0, "SetMaximumPowerLimit", "rnd:4 tid:24 mpl:16"),  # A
    _row(2, 1, "ClearCredit", "rnd:4 tid:24 register:16"),  # A
    _row(2, 2, "SetTariffRate", "rnd:4 tid:24 rate:16"),  # B
    _row(
        *(2, 3, "Set1stSectionDecoderKey"),
        "kenho:4 krn:4 ro:1 third_kct:1 kt:2 nkho:32",  # A
    ),
    _row(2, 4, "Set2ndSectionDecoderKey", "kenlo:4 ti:8 nklo:32"),  # A; ti binary: B
    _row(2, 5, "ClearTamperCondition", "rnd:4 tid:24 pad:16"),  # A
    _row(2, 6, "SetMaximumPhasePowerUnbalanceLimit", "rnd:4 tid:24 mppul:16"),  # A
    _row(2, 7, "SetWaterMeterFactor", "rnd:4 tid:24 wmf:16"),  # B
    _row(2, 8, "Set3rdSectionDecoderKey", "sgc:24 pad:20", STA),  # B
    _row(2, 8, "Set3rdSectionDecoderKey", "sgclo:12 nkmo2:32", MISTY1),  # A
    _row(2, 9, "Set4thSectionDecoderKey", "sgcho:12 nkmo1:32", MISTY1),  # A
    _row(2, 10, "Extended token set (STS 202-5)", "rnd:4 tid:24 index:6 value:10"),  # B
)

# The smallest unit of each credit subclass. Gas and time: the 2018 edition announces a finer
# resolution; a utility that needs it must confirm the edition its meters follow.
AMOUNT_UNITS = {
    0: "0.1 kWh",
    1: "0.1 m3",
    2: "0.1 m3",
    3: "0.1 min",
    **dict.fromkeys(CURRENCY_SUBCLASSES, "0.00001 of the currency"),
}

# ClearCredit: electricity, water, gas, time, the same four in currency, and all.
REGISTERS = (*range(8), 0xFFFF)


# Class and subclass that makers give a meaning of their own (C); all others are reserved.
PROPRIETARY = frozenset((METER_SPECIFIC, subclass) for subclass in range(11, 16))


def _indexed() -> dict[tuple[int, int, int], Layout]:
    return {
        (row.cls, row.subclass, ea): row
        for row in LAYOUTS
        for ea in ((row.ea,) if row.ea else ALGORITHMS)
    }


LAYOUT_BY_KIND = _indexed()


def layout(cls: int, subclass: int, ea: int) -> Layout:
    """The row for a class and subclass under encryption algorithm `ea`."""
    row = LAYOUT_BY_KIND.get((cls, subclass, ea))
    if row is None:
        raise UnsupportedSubclass(cls, subclass, _assignment(cls, subclass))
    return row


def _assignment(cls: int, subclass: int) -> str:
    """Whose a subclass is that has no row, or none for the algorithm asked about."""
    for row in LAYOUTS:
        if (row.cls, row.subclass) == (cls, subclass):
            return f"of EA{row.ea:02} only"
    return "proprietary" if (cls, subclass) in PROPRIETARY else "reserved"


def is_currency(cls: int, subclass: int) -> bool:
    return cls == CREDIT and subclass in CURRENCY_SUBCLASSES


def pack(row: Layout, values: Mapping[str, int]) -> int:
    """The 44-bit content of `values`; every field of the row must be given, and no other."""
    wanted = {field.name for field in row.fields if field.name != "pad"}
    if wanted != set(values):
        raise TokenError(
            "field_out_of_range",
            f"{row.name} takes the fields {_listed(wanted)}, not {_listed(values)}.",
        )
    content = 0
    for field in row.fields:
        value = values.get(field.name, 0)
        if not 0 <= value < 1 << field.bits:
            # The value stays out of the sentence: it may be a section of a key.
            raise TokenError(
                "field_out_of_range",
                f"Field {field.name} of {row.name} does not fit in {field.bits} bits; "
                "give a smaller value.",
            )
        content = content << field.bits | value
    return content


def unpack(row: Layout, content: int) -> dict[str, int]:
    """The fields of a 44-bit content, padding included, so that a reader can check it."""
    values: dict[str, int] = {}
    for field in reversed(row.fields):
        values[field.name] = content & (1 << field.bits) - 1
        content >>= field.bits
    return dict(reversed(values.items()))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
