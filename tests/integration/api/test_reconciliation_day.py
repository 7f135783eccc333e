"""A business date with seeded differences, over HTTP: each is found, owned, decided."""

import hashlib
from random import Random
from typing import Any

import pytest

from schemas.quantities import format_instant, parse_instant_ms
from store import operators

Site = Any
DAY = "2026-03-10"
NOON = parse_instant_ms(f"{DAY}T12:00:00Z")
MINUTE = 60_000
# Each so often; the class that each line or payment must get.
SEEDED = {
    "matched": 6,
    "ours_only": 2,
    "theirs_only": 2,
    "amount_differs": 2,
    "duplicate": 2,
    "late": 2,
}


@pytest.fixture
def finance(site: Site) -> dict[str, str]:
    operators.add(site.conn, "finn", "finance", who="test", now_ms=site.clock.now)
    key = operators.add_access_key(site.conn, "finn", "t", who="test", now_ms=site.clock.now)
    return {"Authorization": f"Bearer {key}"}


def line(number: str, meter: str, cents: int, paid_ms: int) -> dict[str, str]:
    amount = f"{cents // 100}.{cents % 100:02d}"
    return {
        "partner_txn_id": number,
        "meter": meter,
        "amount": amount,
        "paid_at": format_instant(paid_ms),
    }


def file_of(lines: list[dict[str, str]]) -> dict[str, object]:
    """The file as docs/partners.md describes it, made here without our own code."""
    text = "".join(
        "\t".join((each["partner_txn_id"], each["meter"], each["amount"] + "0000", each["paid_at"]))
        + "\n"
        for each in lines
    )
    cents = sum(int(each["amount"].replace(".", "")) for each in lines)
    return {
        "lines": lines,
        "trailer": {
            "count": len(lines),
            "sum": f"{cents // 100}.{cents % 100:02d}",
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
        },
    }


def seeded_day(site: Site, chance: Random) -> tuple[list[dict[str, str]], dict[str, str]]:
    """Pays what we have of the day; returns the bank's lines, and the class of each number."""
    kinds = [kind for kind, times in SEEDED.items() for _ in range(times)]
    chance.shuffle(kinds)
    lines, wanted = [], {}
    for place, kind in enumerate(kinds):
        number, meter = f"{kind}-{place}", site.open().meter
        cents, paid_ms = chance.randrange(100, 90_000), NOON + place * MINUTE
        if kind == "late":
            # Paid in the last minutes of the day before, in the bank's file of this one.
            paid_ms = parse_instant_ms(f"{DAY}T00:00:00Z") - (place + 1) * MINUTE
        sent = line(number, meter, cents, paid_ms)
        if kind != "theirs_only":
            site.clock.now = paid_ms
            assert site.signed("POST", "/payments", sent).status_code == 201
        if kind != "ours_only":
            lines.append(sent | line(number, meter, cents + (kind == "amount_differs"), paid_ms))
        wanted[number] = kind
        if kind == "duplicate":
            wanted[number] = "matched"
            lines.append(line(number, meter, cents, paid_ms + 1000))
    chance.shuffle(lines)
    return lines, wanted


def classes(body: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for item in body["items"]:
        if item["decision"] != "overtaken":
            found.setdefault(item["partner_txn_id"], []).append(item["class"])
    return {number: sorted(of) for number, of in found.items()}


@pytest.mark.parametrize("seed", [1, 2])
def test_every_seeded_difference_is_found_owned_and_ends_with_a_decision(
    site: Site, finance: dict[str, str], refused: Any, seed: int
) -> None:
    site.clock.now = NOON - 2 * 86_400_000
    lines, wanted = seeded_day(site, Random(seed))
    site.clock.now = NOON + 60 * MINUTE
    file = file_of(lines)
    early = site.signed("PUT", f"/recon/{DAY}", file)
    assert refused(early) == (409, "date_not_over")
    site.clock.now = NOON + 86_400_000

    first = site.signed("PUT", f"/recon/{DAY}", file)
    assert first.status_code == 200
    twice = {number for number, kind in wanted.items() if number.startswith("duplicate")}
    assert classes(first.json()) == {
        number: sorted([kind, "duplicate"] if number in twice else [kind])
        for number, kind in wanted.items()
    }
    assert site.signed("PUT", f"/recon/{DAY}", file).json() == first.json()

    # What we have: the bank checks our trailer by the same rule.
    standing = site.signed("GET", f"/recon/{DAY}").json()
    ours = [each | {"amount": each["amount"][:-4]} for each in standing["lines"]]
    trailer = file_of(ours)["trailer"]
    assert isinstance(trailer, dict)
    assert standing["trailer"] == trailer | {"sum": trailer["sum"] + "0000"}
    assert {each["partner_txn_id"] for each in ours} == {
        number for number, kind in wanted.items() if kind not in {"late", "theirs_only"}
    }
    assert standing["file"]["sha256"] == file["trailer"]["sha256"]  # type: ignore[index] # a form
    # Another partner sees its own day.
    foreign = site.signed("GET", f"/recon/{DAY}", partner="wallet", key=site.wallet_key()).json()
    assert (foreign["lines"], foreign["items"], foreign["file"]) == ([], [], None)
    decide_all(site, finance, refused, wanted)


def decide_all(site: Site, finance: dict[str, str], refused: Any, wanted: dict[str, str]) -> None:
    queue = site.client.get("/v1/reconciliation", headers=finance).json()["items"]
    assert sorted(each["class"] for each in queue) == sorted(
        kind for kind, times in SEEDED.items() if kind not in {"matched", "late"}
        for _ in range(times)
    )  # fmt: skip
    owners = {each["class"]: each["owner"] for each in queue}
    assert owners == {
        "ours_only": "partner", "theirs_only": "finance", "amount_differs": "finance",
        "duplicate": "partner",
    }  # fmt: skip

    def decide(item: Any, decision: str) -> Any:
        headers = finance | {"Idempotency-Key": f"{item['id']}-{decision}"}
        body = {"decision": decision, "note": "agreed on the telephone"}
        return site.client.post(
            f"/v1/reconciliation/{item['id']}/decision", headers=headers, json=body
        )

    for item in queue:
        if item["class"] == "theirs_only":
            # The message never came; the money did.
            done = decide(item, "credited")
            assert done.json()["decision"] == "credited"
            paid = site.signed("GET", f"/payments/{item['partner_txn_id']}").json()
            assert (paid["state"], paid["amount"]["amount"]) == ("token_issued", item["theirs"])
        else:
            assert refused(decide(item, "credited")) == (409, "nothing_to_credit")
            done = decide(item, "agreed")
        assert done.status_code == 200
        assert decide(item, done.json()["decision"]).json() == done.json()
        assert refused(decide(item, "returned")) == (409, "item_closed")
    assert site.client.get("/v1/reconciliation", headers=finance).json()["items"] == []
    every = site.client.get("/v1/reconciliation?waiting=false&limit=500", headers=finance).json()
    assert len(every["items"]) == sum(SEEDED.values()) + SEEDED["duplicate"]
    acts = site.client.get("/v1/audit-log?action=reconciliation.close", headers=site.operator)
    assert len(acts.json()["items"]) == len(queue)


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"count": 2}, 422, "trailer_differs"),
        ({"sum": "9.99"}, 422, "trailer_differs"),
        ({"sha256": "0" * 64}, 422, "trailer_differs"),
        ({"sum": "-1"}, 422, "bad_amount"),
        ({"sha256": "0"}, 422, "invalid_request"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(
    shared_site: Site, refused: Any, change: dict[str, object], status: int, code: str
) -> None:
    site = shared_site
    site.clock.now = NOON + 86_400_000
    file = file_of([line("whole-1", site.open().meter, 500, NOON)])
    file["trailer"] = {**file["trailer"], **change}  # type: ignore[dict-item] # a form
    assert refused(site.signed("PUT", f"/recon/{DAY}", file)) == (status, code)
    assert site.signed("GET", f"/recon/{DAY}").json()["file"] is None


@pytest.mark.parametrize(
    ("day", "code"),
    [("1999-12-31", "bad_date"), ("9999-12-31", "bad_date"), ("today", "invalid_request")],
)
def test_a_date_that_is_none_of_ours_is_refused(
    shared_site: Site, refused: Any, day: str, code: str
) -> None:
    assert refused(shared_site.signed("GET", f"/recon/{day}")) == (422, code)
    assert refused(shared_site.signed("PUT", f"/recon/{day}", file_of([]))) == (422, code)


def test_a_file_may_be_larger_than_another_request_and_has_its_own_limit(
    shared_site: Site, refused: Any
) -> None:
    site = shared_site
    site.clock.now = NOON + 86_400_000
    meter = site.open().meter
    file = file_of([line(f"many-{n}", meter, 500 + n, NOON + n) for n in range(800)])
    taken = site.signed("PUT", "/recon/2026-03-08", file)
    assert (taken.status_code, len(taken.json()["items"])) == (200, 800)
    over = site.signed("PUT", "/recon/2026-03-08", raw=b"0" * (8 * 1024 * 1024 + 1))
    assert refused(over) == (413, "body_too_large")
    elsewhere = site.signed("POST", "/lookup", raw=b"0" * (64 * 1024 + 1))
    assert refused(elsewhere) == (413, "body_too_large")
