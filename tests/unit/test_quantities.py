import pytest

from schemas.errors import DomainError
from schemas.identity import command_id, parse_meter_number
from schemas.quantities import (
    format_instant,
    format_kwh,
    format_micro,
    parse_instant_ms,
    parse_kwh,
    parse_micro,
    typed_decimal,
)


@pytest.mark.parametrize(
    ("text", "micro"),
    [
        ("200.00", 200_000_000),
        ("123.456789", 123_456_789),
        ("0", 0),
        ("-0.000001", -1),
        ("007", 7_000_000),
    ],
)
def test_money_is_read_exactly(text: str, micro: int) -> None:
    assert parse_micro(text) == micro


@pytest.mark.parametrize(
    "text",
    ["", ".5", "5.", "1e3", "+1", " 1", "1 ", "1\n", "1,5", "0.1234567", "NaN", "٣", "0x1", 1.5, 2],
)
def test_money_that_is_not_plain_decimal_is_refused(text: object) -> None:
    with pytest.raises(DomainError) as caught:
        parse_micro(text)  # type: ignore[arg-type]  # JSON may bring numbers
    assert caught.value.code == "bad_amount"


def test_money_is_written_with_six_decimals() -> None:
    assert [format_micro(m) for m in (0, 1, -1_500_000)] == ["0.000000", "0.000001", "-1.500000"]


def test_energy_has_three_decimals() -> None:
    assert parse_kwh("41.23") == 41_230
    assert format_kwh(-41_230) == "-41.230"
    with pytest.raises(DomainError, match="at most 3 decimals"):
        parse_kwh("1.2345")


@pytest.mark.parametrize(
    ("typed", "plain"),
    [
        ("1500.25", "1500.25"),
        ("1 500,25", "1500.25"),
        ("1 500.25", "1500.25"),
        ("١٬٥٠٠٫٢٥", "1500.25"),
        ("۱۲۳", "123"),
        (" ٢٠٠ ", "200"),
        ("1 234 567", "1234567"),
        ("\u200f٢٠٠\u200f", "200"),
        ("\u2212 5".replace(" ", ""), "-5"),
        ("12,5", "12.5"),
    ],
)
def test_typed_amounts_are_understood(typed: str, plain: str) -> None:
    assert typed_decimal(typed) == plain


@pytest.mark.parametrize("typed", ["1,500", "1.500,25", "1,5,0", "", "abc", "1 5", "12 34", "²"])
def test_ambiguous_typing_is_refused(typed: str) -> None:
    with pytest.raises(DomainError) as caught:
        typed_decimal(typed)
    assert caught.value.code == "bad_amount"


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-03-01T10:15:00Z", 1_772_360_100_000),
        ("2026-03-01t10:15:00z", 1_772_360_100_000),
        ("2026-03-01T10:15:00.5Z", 1_772_360_100_500),
        ("2026-03-01T10:15:00.007Z", 1_772_360_100_007),
        ("2026-03-01T16:00:00+05:45", 1_772_360_100_000),
        ("1969-12-31T23:59:59.999Z", -1),
    ],
)
def test_instants_are_read_to_the_millisecond(text: str, ms: int) -> None:
    assert parse_instant_ms(text) == ms


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-03-01",
        "2026-03-01T10:15Z",
        "2026-03-01T10:15:00",
        "2026-03-01 10:15:00Z",
        "2026-03-01T10:15:00.0000Z",
        "2026-03-01T10:15:00,5Z",
        "2026-03-01T24:00:00Z",
        "2026-13-01T10:15:00Z",
        "2026-03-01T10:15:60Z",
        "2026-03-01T10:15:00+0100",
        "٢٠٢٦-03-01T10:15:00Z",
    ],
)
def test_other_instants_are_refused(text: str) -> None:
    with pytest.raises(DomainError) as caught:
        parse_instant_ms(text)
    assert caught.value.code == "bad_instant"


def test_instants_are_written_short_unless_milliseconds_count() -> None:
    assert format_instant(1_772_360_100_000) == "2026-03-01T10:15:00Z"
    assert format_instant(1_772_360_100_050) == "2026-03-01T10:15:00.050Z"
    with pytest.raises(DomainError):
        format_instant(10**18)


def test_meter_numbers_are_digits_of_three_lengths() -> None:
    assert parse_meter_number("6007 2700 0000 0000 09") == "600727000000000009"
    for wrong in ("", "1234567890", "123456789012", "3700000001x", "٣٧٠٠٠٠٠٠٠١٧"):
        with pytest.raises(DomainError, match="DRN"):
            parse_meter_number(wrong)


def test_command_ids_are_as_in_rfc_9562_appendix_a6() -> None:
    entropy = (0xCC3 << 68 | 0x18C4DC0C0C07398F).to_bytes(10, "big")
    assert command_id(0x017F22E279B0, entropy) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


@pytest.mark.parametrize(("now_ms", "octets"), [(0, 9), (1 << 48, 10), (-1, 10)])
def test_a_command_id_needs_ten_bytes_and_48_bits_of_time(now_ms: int, octets: int) -> None:
    with pytest.raises(DomainError):
        command_id(now_ms, bytes(octets))
