"""Class 1 tokens: tests and displays, in clear, the same for every meter (IEC 62055-41 6.2.3)."""

from collections.abc import Mapping

from tokens import apdu
from tokens.apdu import Apdu

# Subclass 2 reads what its control bits name, so there nothing goes without saying.
INITIATING_SUBCLASSES = (0, 1)
NO_MAKER = 0


def initiate_test(subclass: int, fields: Mapping[str, int]) -> Apdu:
    """The APDU of class 1 with `control` (one bit per test or display) and `mfr_code`.

    Without control bits it is test 0, which is all of them; without a maker code, of no maker.
    """
    row = apdu.layout(apdu.NON_METER_SPECIFIC, subclass, apdu.STA)
    given = dict(fields)
    if subclass in INITIATING_SUBCLASSES:
        (control,) = (field for field in row.fields if field.name == "control")
        given.setdefault("control", (1 << control.bits) - 1)
    given.setdefault("mfr_code", NO_MAKER)
    apdu.pack(row, given)  # refuses what the row does not hold, by its own sentence
    return Apdu(apdu.NON_METER_SPECIFIC, subclass, given)
