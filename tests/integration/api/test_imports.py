"""Files of rows: each row answers for itself, and a file that comes again changes nothing."""

from typing import Any

import pytest

from store import operators, registry
from tokens.numbers import check_digit

Site = Any
ARABIC = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")


def number(serial: int) -> str:
    return f"41{serial:08d}" + check_digit(f"41{serial:08d}")


def pan(meter: str) -> str:
    return f"600727{meter}" + check_digit(f"600727{meter}")


def operator(site: Site, name: str, role: str, *centres: str) -> dict[str, str]:
    operators.add(site.conn, name, role, centres, who="test", now_ms=site.clock.now)  # type: ignore[arg-type] # a role by its name
    key = operators.add_access_key(site.conn, name, "t", who="test", now_ms=site.clock.now)
    return {"Authorization": f"Bearer {key}"}


def send(
    site: Site, what: str, text: str | bytes, headers: dict[str, str] | None = None, key: str = ""
) -> Any:
    return site.client.post(
        f"/v1/imports/{what}?reason=roll-out",
        headers={
            **(headers or site.operator),
            "content-type": "text/csv",
            "Idempotency-Key": key or f"k{next(site.ids)}",
        },
        content=text,
    )


def answered(answer: Any) -> list[tuple[int, str, str | None]]:
    assert answer.status_code == 200, answer.text
    body = answer.json()
    states = [row["state"] for row in body["rows"]]
    assert (body["done"], body["refused"]) == (states.count("done"), states.count("refused"))
    return [(row["line"], row["state"], row["code"]) for row in body["rows"]]


def test_meters_come_in_row_by_row_and_the_good_ones_stay(site: Site) -> None:
    registry.add_centre(site.conn, "south", "South")
    rows = [
        "number,centre,gateway,meter_pan,sgc,krn,account,holder,tariff,opening_wh,max_power_w",
        f"{number(1)},north,GW-1,{pan(number(1))},123456,1,M-1,Aminata Sow,social,500,",
        f"{number(2)},north,,,,,,,,,",
        f"{number(3)},nowhere,,,,,,,,,",
        f"{number(4)},north,a/b,,,,,,,,",
        f"{number(5)},north,,{pan(number(5))},123456,12,,,,,",
        f"{number(6)},north,,,,,M-6,Nobody,none,,",
        f"{number(7)},north,,,,,,Nobody,social,,",
        "123,north,,,,,,,,,",
        f"{number(8)},north",
        f"{number(1)},north,GW-2,,,,,,,,",
        f"{number(9)},south,,,,,M-9,Moussa,social,{'٥٠٠'},",
        f"{number(2).translate(ARABIC)},north,,,,,,,,,",
    ]
    answer = send(site, "meters", "\n".join(rows))
    assert answered(answer) == [
        (2, "done", None),
        (3, "done", None),
        (4, "refused", "not_found"),
        (5, "refused", "bad_gateway"),
        (6, "refused", "invalid_request"),
        (7, "refused", "not_found"),
        (8, "refused", "invalid_request"),
        (9, "refused", "bad_meter_number"),
        (10, "refused", "bad_row"),
        (11, "refused", "meter_exists"),
        (12, "done", None),
        (13, "done", "known"),
    ]
    assert "krn" in answer.json()["rows"][4]["detail"]
    again = answered(send(site, "meters", "\n".join(rows)))
    assert [each[2] for each in again if each[1] == "done"] == ["known"] * 4
    shown = site.client.get(f"/v1/meters/{number(1)}", headers=site.operator).json()
    assert (shown["gateway"], shown["account"], shown["sts"]["krn"]) == ("GW-1", "M-1", 1)
    listed = site.client.get("/v1/meters", headers=site.operator).json()["items"]
    assert [each["number"] for each in listed] == [number(1), number(2), number(9)]
    acts = site.client.get(
        "/v1/audit-log", headers=site.operator, params={"action": "meter.register"}
    ).json()["items"]
    assert [each["reason"] for each in acts] == ["roll-out"] * 3


def test_a_spreadsheet_of_another_land_is_read_as_well(site: Site) -> None:
    text = f"\ufeffnumber;centre;holder;account;tariff\r\n{number(1)};north;Sow, A.;M-1;social\r\n"
    assert answered(send(site, "meters", text)) == [(2, "done", None)]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "bad_columns"),
        ("number\n1", "bad_columns"),
        ("number,centre,colour\n", "bad_columns"),
        ("number,centre,centre\n", "bad_columns"),
        (b"number,centre\n\xff", "bad_csv"),
        ('number,centre\n"a', "bad_csv"),
        ("number,centre\n" + "1,north\n" * 2001, "too_many_rows"),
    ],
)
def test_a_file_that_is_none_is_refused_whole(
    site: Site, refused: Any, text: str | bytes, code: str
) -> None:
    assert refused(send(site, "meters", text)) == (422, code)


def test_rows_of_another_centre_are_refused_like_unknown_ones(site: Site) -> None:
    ours = site.open()
    registry.add_centre(site.conn, "south", "South")
    south = operator(site, "south.admin", "admin", "south")
    rows = f"number,centre\n{number(1)},north\n{ours.meter},south\n{number(2)},south\n"
    assert answered(send(site, "meters", rows, south)) == [
        (2, "refused", "not_found"),
        (3, "refused", "meter_exists"),
        (4, "done", None),
    ]
    money = f"account,amount,reason\n{ours.number},5,x\nNONE,5,x\n"
    assert answered(send(site, "adjustments", money, south)) == [
        (2, "refused", "not_found"),
        (3, "refused", "not_found"),
    ]


def test_corrections_are_entered_once_under_a_key(site: Site, refused: Any) -> None:
    first, second = site.open(), site.open()
    rows = "\n".join(
        [
            "account,amount,currency,reason",
            f"{second.number},{'١٢.٥٠'},MRU,a bill of last year",
            f"{first.number},-2,,read wrongly",
            f"{first.number},900,,too much for one person",
            f"{first.number},0,,nothing",
            f"{first.number},1.005,,too fine",
            f"{first.number},1,EUR,of elsewhere",
            f"{first.number},1,,",
            f"{first.number},-2,,read wrongly",
        ]
    )
    answer = send(site, "adjustments", rows, key="file-1")
    assert answered(answer) == [
        (2, "done", None),
        (3, "done", None),
        (4, "done", "requested"),
        (5, "refused", "amount_not_positive"),
        (6, "refused", "amount_too_precise"),
        (7, "refused", "currency_mismatch"),
        (8, "refused", "invalid_request"),
        (9, "done", None),
    ]

    def balance(customer: Any) -> str:
        found: str = site.get(customer, "/balance")["balance"]["amount"]
        return found

    assert (balance(first), balance(second)) == ("-4.000000", "12.500000")
    assert send(site, "adjustments", rows, key="file-1").json() == answer.json()
    assert balance(first) == "-4.000000"
    other = send(site, "adjustments", rows + "\n", key="file-1")
    assert refused(other) == (409, "idempotency_conflict")
    waiting = site.client.get("/v1/adjustments?state=requested", headers=site.operator).json()
    assert [each["amount"]["amount"] for each in waiting["items"]] == ["900.000000"]


def test_an_import_says_who_may_and_wants_a_key_for_money(site: Site, refused: Any) -> None:
    desk, finance = operator(site, "dora", "desk"), operator(site, "finn", "finance")
    assert refused(send(site, "adjustments", "", desk)) == (403, "role_refused")
    assert refused(send(site, "meters", "", finance)) == (403, "role_refused")
    bare = site.client.post("/v1/imports/adjustments", headers=finance, content="account")
    assert refused(bare) == (422, "invalid_request")


def test_a_file_may_be_longer_than_a_request_and_not_without_end(site: Site, refused: Any) -> None:
    long = "number,centre\n" + f"{'x' * 200},north\n" * 600
    assert len(long) > 64 * 1024
    assert {each[1] for each in answered(send(site, "meters", long))} == {"refused"}
    assert refused(send(site, "meters", b" " * (8 * 1024 * 1024 + 1))) == (413, "body_too_large")
