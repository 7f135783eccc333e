"""A certificate's life at a real broker: enrolled, renewed, revoked; and who is refused one."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import psycopg
import pytest

from meter_gateway.enrolment import Enrolment
from prepaid.clock import wall_ms
from schemas.commands import encode
from schemas.errors import DomainError
from simulators.enrolment import Claim, enrol
from store import trust
from store.session import Session

REVOKED, STAYS, FRESH, UNKNOWN = "37000000074", "37000000017", "37000000058", "37000000066"
CLAIM = "claim.batch-1"
ANSWER_S = 10
Site = Any


async def test_a_revoked_certificate_loses_its_connection_and_opens_no_new_one(site: Site) -> None:
    site.issue(REVOKED)
    async with site.device(STAYS) as other:
        ended = await _live_until_revoked(site)
        assert isinstance(ended, aiomqtt.MqttError)
        await other.publish(f"pm/v1/m/{STAYS}/up/reading", b"{}", qos=1)
        other.raise_refused()
    assert not site.admits(site.context(REVOKED))
    assert site.admits(site.context(STAYS))
    code, _, said = _revoke(site)
    assert (code, "not found" in said) == (2, True)
    shown = json.loads(site.done("certs", "list", REVOKED, "--json"))
    assert (shown["state"], shown["revocation_reason"]) == ("revoked", "stolen")
    assert "pem" not in shown


def _revoke(site: Site) -> tuple[int, str, str]:
    outcome: tuple[int, str, str] = site.prepaid(
        "certs", "revoke", REVOKED, "--by", "a", "--reason", "stolen"
    )
    return outcome


async def _live_until_revoked(site: Site) -> BaseException | None:
    """A meter that comes back as often as it is thrown off, as a meter does."""
    revoking: asyncio.Task[tuple[int, str, str]] | None = None
    while True:
        try:
            async with site.device(REVOKED) as client:
                await client.publish(f"pm/v1/m/{REVOKED}/up/reading", b"{}", qos=1)
                if revoking is None:
                    revoking = asyncio.create_task(asyncio.to_thread(_revoke, site))
                async for _ in client.messages:
                    pass
        except aiomqtt.MqttError as error:
            if revoking is not None and not site.admits(site.context(REVOKED)):
                assert (await revoking)[0] == 0
                return error


@asynccontextmanager
async def enrolling(site: Site) -> AsyncIterator[None]:
    """The server's desk."""
    session, stopping, ready = (
        Session(site.database_url, "enrolment"),
        asyncio.Event(),
        asyncio.Event(),
    )
    at = Enrolment(site.part("enrolment"), "prepaid-enrolment", session, site.desk().enrol, wall_ms)
    running = asyncio.create_task(at.run(stopping, ready.set))
    async with asyncio.timeout(ANSWER_S):
        await ready.wait()
    try:
        yield
    finally:
        stopping.set()
        await running
        await session.close()


def claim(site: Site, name: str = CLAIM) -> Claim:
    return Claim(
        "localhost",
        site.ports["certificates"],
        site.folder / "ca" / "ca.pem",
        name,
        site.certs / f"{CLAIM}.pem",
        site.certs / f"{CLAIM}.key",
    )


def counts(site: Site, meter: str) -> dict[str, int]:
    with psycopg.connect(site.database_url, autocommit=True) as conn:
        return {each.reason: each.times for each in trust.refusals(conn, 0) if each.device == meter}


async def refused(site: Site, meter: str, folder: Path, code: str) -> None:
    before, lost, found = counts(site, meter).get(f"enrolment:{code}", 0), 0, ""
    # As a device, which connects again and asks once more where a connection is lost.
    while not found and lost < 3:
        try:
            await enrol(claim(site), meter, folder)
        except aiomqtt.MqttError:
            lost += 1
        except DomainError as error:
            found = error.code
        else:
            found = "enrolled"
    assert found == code
    # Once, where no connection was lost.
    assert before < counts(site, meter)[f"enrolment:{code}"] <= before + 1 + lost


async def test_a_registered_meter_enrols_once_and_again_only_by_leave(
    site: Site, tmp_path: Path
) -> None:
    first, repaired = tmp_path / "first", tmp_path / "repaired"
    for folder in (first, repaired, site.certs):
        folder.mkdir(exist_ok=True)
    async with enrolling(site):
        certificate, key = await enrol(claim(site), FRESH, first)
        assert key.stat().st_mode & 0o777 == 0o600
        context = site.context(None)
        context.load_cert_chain(certificate, key)
        async with site.device(FRESH, tls_context=context) as meter:
            await meter.publish(f"pm/v1/m/{FRESH}/up/reading", b"{}", qos=1)
            meter.raise_refused()
        before = certificate.read_bytes()
        await enrol(claim(site), FRESH, first)
        assert certificate.read_bytes() == before  # the answer got lost: it is the same

        await refused(site, FRESH, repaired, "already_enrolled")
        site.done("certs", "allow-reenrolment", FRESH, "--by", "a", "--reason", "repaired")
        renewed, new_key = await enrol(claim(site), FRESH, repaired)
        again = site.context(None)
        again.load_cert_chain(renewed, new_key)
        assert site.admits(again)
        async with asyncio.timeout(ANSWER_S):
            while site.admits(context):  # the broker reads its list a moment later
                await asyncio.sleep(0.02)
        await refused(site, FRESH, first, "already_enrolled")


async def test_what_asks_under_a_claim_without_a_right_is_refused_and_counted(
    site: Site, tmp_path: Path
) -> None:
    async with enrolling(site):
        await refused(site, UNKNOWN, tmp_path, "not_found")
        async with site.device(CLAIM) as asking:
            await asking.subscribe(f"pm/v1/e/{CLAIM}/cert", qos=1)
            for csr, code in (
                ("no request", "bad_request"),
                (_request_of(tmp_path), "request_name"),
            ):
                form = {"v": 1, "meter": STAYS, "csr": csr}
                await asking.publish(f"pm/v1/e/{CLAIM}/csr", encode(form), qos=1)
                async with asyncio.timeout(ANSWER_S):
                    message = await anext(aiter(asking.messages))
                assert json.loads(message.payload) == {"v": 1, "meter": STAYS, "refused": code}
                assert counts(site, STAYS)[f"enrolment:{code}"] >= 1
            await asking.publish(f"pm/v1/e/{CLAIM}/csr", b"rubbish", qos=1)
            async with asyncio.timeout(ANSWER_S):
                while "enrolment:bad_request" not in counts(site, ""):
                    await asyncio.sleep(0.02)


def _request_of(folder: Path) -> str:
    """A request that another meter made."""
    from simulators.enrolment import _key, _request  # noqa: PLC0415 - the other side's own hand

    return _request(_key(folder / "other.key"), UNKNOWN)


def test_a_name_has_one_certificate_until_it_is_renewed(site: Site) -> None:
    code, _, said = site.prepaid("certs", "issue", STAYS, "--out", str(site.certs), "--by", "a")
    assert (code, "renew or revoke" in said) == (2, True)
    old = site.context(STAYS)
    site.done("certs", "renew", STAYS, "--out", str(site.certs), "--by", "a", "--days", "20")
    assert site.admits(old)
    assert site.admits(site.context(STAYS))
    states = [json.loads(line)["state"] for line in
              site.done("certs", "list", STAYS, "--json").splitlines()]  # fmt: skip
    assert states == ["valid", "valid"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("issue", UNKNOWN), "not found"),
        (("issue", "DCU-9"), "not found"),
        (("issue", "part.other"), "Name a meter's number"),
        (("issue", "claim."), "Name a meter's number"),
        (("issue", "server"), "--host"),
        (("issue", "claim.x", "--host", "h"), "--host"),
        (("renew", "claim.never"), "has no certificate"),
    ],
)
def test_a_certificate_that_nobody_should_have_is_not_made(
    site: Site, words: tuple[str, ...], said: str
) -> None:
    code, _, error = site.prepaid("certs", *words, "--out", str(site.certs), "--by", "a")
    assert (code, said in error) == (2, True), error


def test_a_revocation_is_for_ever(site: Site, as_owner: Callable[[str], str]) -> None:
    with psycopg.connect(as_owner(site.database_url), autocommit=True) as conn:
        for change in (
            "UPDATE certificate SET name = 'x'",
            "DELETE FROM certificate",
            "TRUNCATE certificate",
        ):
            with pytest.raises(psycopg.errors.IntegrityError):
                conn.execute(change)


async def test_a_claim_that_was_revoked_enrols_nobody(site: Site) -> None:
    site.issue("claim.gone")
    with psycopg.connect(site.database_url, autocommit=True) as conn:
        trust.revoke(conn, "claim.gone", "a", "over", wall_ms())
        with pytest.raises(DomainError) as caught:
            trust.enrol(conn, STAYS, "claim.gone", b"", lambda: pytest.fail("signed"), wall_ms())
    assert caught.value.code == "unknown_claim"
