"""The demonstration's trust: users of the private broker, the signing key, and on request an
authority with a certificate for each device. All random, made at the first start.
"""

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prepaid.clock import wall_ms
from prepaid.runtime import Access, DeviceTls
from prepaid.runtime.mosquitto_files import PARTS
from prepaid.runtime.server_process import LOOPBACK
from prepaid.secrets_files import read_secret, write_secret
from prepaid.trust.authority import CA_FILE, CA_KEY_FILE, Authority, key_pem, new_key
from prepaid.trust.desk import Desk
from prepaid.trust.files import passphrase
from schemas.signing import KEY_OCTETS, SigningKey
from store import trust
from store.pool import Connection

PASSWORD_OCTETS = 24
# The meter that README.md lets a reader be.
VISITOR = "37000000017"
BY = "prepaid up"


@dataclass(frozen=True, slots=True)
class DemoTrust:
    """Where it lies; every secret file is its owner's alone."""

    folder: Path

    @property
    def signing_key_file(self) -> Path:
        return self.folder / "signing-key"

    @property
    def ca(self) -> Path:
        return self.folder / "ca"

    @property
    def ca_passphrase(self) -> Path:
        return self.folder / "ca.passphrase"

    @property
    def certificates(self) -> Path:
        return self.folder / "certificates"

    def signing_key(self) -> SigningKey:
        """What commands are signed with, made once."""
        self._make()
        if not self.signing_key_file.exists():
            made = SigningKey.from_octets(secrets.token_bytes(KEY_OCTETS))
            write_secret(self.signing_key_file, made.pem())
        return SigningKey.from_pem(read_secret(self.signing_key_file))

    def passwords(self, devices: Sequence[str]) -> Mapping[str, str]:
        """A password per part, per device and for the reader's own meter; each is made once."""
        self._make()
        path = self.folder / "passwords.json"
        known: dict[str, str] = json.loads(read_secret(path)) if path.exists() else {}
        missing = {*PARTS, *devices, VISITOR} - known.keys()
        if missing:
            known |= {user: secrets.token_urlsafe(PASSWORD_OCTETS) for user in sorted(missing)}
            write_secret(path, json.dumps(known).encode())
        return known

    def access(self, devices: Sequence[str], *, tls: bool) -> Access:
        """What the private broker admits: passwords, or with `tls` certificates of the devices."""
        device_tls = self._device_tls() if tls else None
        return Access(self.passwords(devices), device_tls=device_tls, count_refusals=True)

    def show(self, forms: Mapping[str, dict[str, Any]], *, tls: bool) -> None:
        """Write into the form of each device, by its name, what it must show to the broker."""
        passwords = self.passwords(list(forms))
        for name, form in forms.items():
            form["password"] = passwords[name]
            for key, suffix in (("certificate", "pem"), ("private_key", "key")):
                form.pop(key, None)
                if tls:
                    form[key] = str(self.certificates / f"{name}.{suffix}")

    def obey(self, meters: Iterable[dict[str, Any]]) -> None:
        """Write into each meter's form whose commands it obeys."""
        command_key = self.signing_key().verification_key.text
        for form in meters:
            form["command_keys"] = [command_key]

    def certify(self, conn: Connection, devices: Sequence[str]) -> None:
        """A certificate for each registered device that has none in force, and the server's."""
        now_ms = wall_ms()
        desk = Desk(Authority.load(self.ca, passphrase(self.ca_passphrase)), self.ca)
        with conn.transaction():
            for name in devices:
                held = bool(trust.in_force(conn, name, now_ms))
                if held and (self.certificates / f"{name}.key").exists():
                    continue
                desk.issue(conn, name, self.certificates, BY, now_ms, renewal=held)

    def _device_tls(self) -> DeviceTls:
        self._make()
        now_ms = wall_ms()
        if not (self.ca / CA_KEY_FILE).exists():
            write_secret(self.ca_passphrase, secrets.token_urlsafe(PASSWORD_OCTETS).encode())
            Authority.create("prepaid demonstration", now_ms).save(
                self.ca, passphrase(self.ca_passphrase)
            )
        authority = Authority.load(self.ca, passphrase(self.ca_passphrase))
        # The server's lives for one start: it is the one certificate that no record speaks of.
        key = new_key()
        issued = authority.issue(
            key.public_key(), "server", "server", now_ms, hosts=("localhost", LOOPBACK)
        )
        path = self.ca / "crl.pem"
        crl = path.read_bytes() if path.exists() else authority.revocations({}, 0, now_ms)
        return DeviceTls(issued.pem, key_pem(key), (self.ca / CA_FILE).read_bytes(), crl)

    def _make(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
