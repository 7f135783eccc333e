"""Issue, renew and revoke: the authority, the record in the database, and the broker's list.

The order of a revocation: record, list, the broker reads the list, then its live connection ends;
from the moment that the list is read the certificate opens no new one.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import aiomqtt

from meter_gateway.receiver import BrokerAddress
from prepaid.runtime.broker_folder import BrokerFolder
from prepaid.runtime.folders import Account
from prepaid.runtime.mosquitto_files import PARTS
from prepaid.secrets_files import write_secret
from prepaid.trust.authority import (
    CRL_FILE,
    Authority,
    Issued,
    Role,
    key_pem,
    new_key,
    public_key_octets,
    read_request,
)
from schemas.errors import DomainError
from schemas.identity import is_gateway_name, is_meter_number
from schemas.topics import is_claim_name
from store import trust
from store.pool import Connection
from store.trust import NewCertificate

# A device that is taken off may come back before the broker has read the list.
HELD_S = 1.0
DEADLINE_S = 20.0


def role_of(name: str) -> Role:
    """What a name says it is. Errors: DomainError `bad_name`."""
    if is_meter_number(name):
        return "meter"
    if name in PARTS:
        return "part"
    if is_claim_name(name):
        return "claim"
    if name == "server":
        return "server"
    if is_gateway_name(name):
        return "gateway"
    raise DomainError(
        "bad_name",
        "Name a meter's number, a gateway, claim.NAME, server, or one of " + ", ".join(PARTS),
    )


@dataclass(frozen=True, slots=True)
class Desk:
    """The authority with what it writes to; `list_folder` gets the list of revocations."""

    authority: Authority
    list_folder: Path
    broker: BrokerFolder | None = None

    def issue(
        self,
        conn: Connection,
        name: str,
        target: Path,
        by: str,
        now_ms: int,
        *,
        hosts: tuple[str, ...] = (),
        days: int | None = None,
        renewal: bool = False,
    ) -> NewCertificate:
        """A new key and its certificate, as NAME.key (0600) and NAME.pem in `target`.

        Errors: DomainError `bad_name`, `hosts_missing`; NotFound; Conflict.
        """
        role = role_of(name)
        if (role == "server") != bool(hosts):
            raise DomainError("hosts_missing", "Give --host for `server`, and for nothing else.")
        key = new_key()
        issued = trust.issue(
            conn,
            role,
            name,
            lambda: _recorded(
                self.authority.issue(key.public_key(), role, name, now_ms, days, hosts)
            ),
            by,
            now_ms,
            renewal=renewal,
        )
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_secret(target / f"{name}.key", key_pem(key))
        (target / f"{name}.pem").write_text(issued.pem, encoding="ascii")
        if role == "claim":
            self.publish_claims(conn, now_ms)
        return issued

    def publish_claims(self, conn: Connection, now_ms: int) -> None:
        """Let the broker know the claims that may ask."""
        if self.broker is not None:
            self.broker.write_access_list(trust.claims(conn, now_ms))
            self.broker.reload()

    def publish_revocations(self, conn: Connection, now_ms: int) -> bool:
        """Write the list, here and for the broker; whether a broker reads it now."""
        number, revoked = trust.revoked(conn, now_ms)
        pem = self.authority.revocations(revoked, number, now_ms)
        draft = self.list_folder / f"{CRL_FILE}.draft"
        draft.write_bytes(pem)
        draft.replace(self.list_folder / CRL_FILE)
        if self.broker is None:
            return False
        self.broker.write_revocations(pem)
        self.broker.write_access_list(trust.claims(conn, now_ms))
        return self.broker.reload()

    def enrol(
        self, conn: Connection, csr: str, meter: str, claim: str, now_ms: int
    ) -> tuple[str, str]:
        """A meter's certificate and the authority's, as PEM; the broker hears of an old one's end.

        Errors: those of `read_request` and `store.trust.enrol`.
        """
        key = read_request(csr, meter)
        enrolled = trust.enrol(
            conn,
            meter,
            claim,
            public_key_octets(key),
            lambda: _recorded(self.authority.issue(key, "meter", meter, now_ms)),
            now_ms,
        )
        if enrolled.revoked:
            self.publish_revocations(conn, now_ms)
        return enrolled.pem, self.authority.pem.decode("ascii")


def open_folder(path: Path) -> BrokerFolder:
    """A broker's folder as `prepaid broker config` or the private runtime made it.

    Errors: DomainError `broker_folder`.
    """
    try:
        state = (path / "state").stat()
    except OSError:
        raise DomainError(
            "broker_folder", f"{path} is no broker's folder: make it with `prepaid broker config`."
        ) from None
    return BrokerFolder(path, Account(str(state.st_uid), state.st_uid, state.st_gid))


async def end_connection(address: BrokerAddress, device: str) -> bool:
    """End a device's live connection and forget its session; False if it came back until the end.

    Every MQTT broker ends the older connection of a client id, so that this needs no broker's own
    interface: we connect under the device's id on the listener of the server's parts, and stay for
    a moment. A device that comes back ends ours, and we try again.

    Errors: DomainError `broker_away`.
    """
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not await _take_over(address, device):
                pass
    except TimeoutError:
        return False
    return True


async def _take_over(address: BrokerAddress, device: str) -> bool:
    connected = False
    try:
        async with aiomqtt.Client(
            address.host,
            address.port,
            username=address.username,
            password=address.password,
            identifier=device,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=True,
            tls_context=address.tls.context() if address.tls else None,
        ) as client:
            connected = True
            try:
                async with asyncio.timeout(HELD_S):
                    async for _ in client.messages:
                        pass
            except TimeoutError:
                return True
    except aiomqtt.MqttError as error:
        if not connected:
            raise DomainError("broker_away", f"The broker does not let us in: {error}.") from None
    return False


def _recorded(issued: Issued) -> NewCertificate:
    return NewCertificate(
        serial=issued.serial,
        role=issued.role,
        name=issued.name,
        pem=issued.pem.decode("ascii"),
        public_key=issued.public_key,
        not_before_ms=issued.not_before_ms,
        not_after_ms=issued.not_after_ms,
    )


def facts(each: trust.Certificate, now_ms: int) -> Mapping[str, object]:
    """A certificate for people and programs; `state` is valid, revoked or expired."""
    state = (
        "revoked"
        if each.revoked_ms is not None
        else "expired"
        if each.not_after_ms <= now_ms
        else "valid"
    )
    shown = cast("dict[str, object]", each._asdict())
    for left_out in ("pem", "public_key"):
        del shown[left_out]
    return shown | {"state": state}
