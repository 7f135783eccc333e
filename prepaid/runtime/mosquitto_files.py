"""What a mosquitto of ours is told: settings, listeners, access lists, passwords, keys.

Every user name is a device's number, `claim.NAME` or `part.NAME`. A dot is in no number and no
gateway's name, so that no device can be named like a part of the server.

- A device may write `up` and read `dn` below its own name: two patterns for a whole fleet.
- A claim may put its request and read the answer, nothing else: patterns hold for every user, so
  that what they would give to a claim is denied to it by name.
- Each part of the server may do its own work only. Everything else is denied.
- On a listener for devices the client id is the user name: nobody can take over another's session.
"""

import base64
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prepaid.runtime.errors import RuntimeUnavailableError
from prepaid.runtime.server_process import LOOPBACK

# mosquitto's own defaults drop QoS 1 messages of a slow subscriber without a word, beyond 20 in
# flight and 1,000 queued. Zero lifts the limit in flight; the queue is bounded by bytes, far
# above a backlog of one hour of a fleet of 100,000 meters that report every 15 minutes.
# As many messages as those bytes can ever hold, and not zero for "any": mosquitto 2.0 then ends the
# connection of a client after each publication that it denies.
MAX_QUEUED_MESSAGES = 1_000_000_000
MAX_QUEUED_BYTES = 1024 * 1024 * 1024
# The largest payload of the MQTT contract with room for its properties.
MAX_PACKET_BYTES = 128 * 1024
# What a crash can take with it: mosquitto 2 writes its state as a snapshot, every so often, and
# does nothing else meanwhile. That is a moment, or seconds where millions of messages wait.
AUTOSAVE_INTERVAL_S = 2
LONG_QUEUE_AUTOSAVE_S = 300
MAX_KEEPALIVE_S = 3_600
# A session that stays away longer than this is forgotten with its queue.
PERSISTENT_CLIENT_EXPIRATION = "30d"
# What every broker of ours keeps to, wherever it runs; compose.yaml repeats it.
SETTINGS = (
    "persistence true",
    f"persistent_client_expiration {PERSISTENT_CLIENT_EXPIRATION}",
    "max_inflight_messages 0",
    f"max_queued_messages {MAX_QUEUED_MESSAGES}",
    f"max_queued_bytes {MAX_QUEUED_BYTES}",
    f"max_packet_size {MAX_PACKET_BYTES}",
    f"max_keepalive {MAX_KEEPALIVE_S}",
    "queue_qos0_messages false",
    "sys_interval 10",
    "log_type error",
    "log_type warning",
    "log_type notice",
    "connection_messages false",
)
# Denied publications are told at this level only, with a line for every packet beside them; and
# subscriptions, by which a device that asks for another's topics is seen.
REFUSALS_IN_LOG = ("log_type debug", "log_type subscribe")

# What each part of the server may do, by its user name.
PARTS: Mapping[str, tuple[str, ...]] = {
    "part.ingest": ("read pm/v1/m/+/up/+", "read pm/v1/g/+/up/+"),
    "part.dispatch": ("write pm/v1/m/+/dn/+", "write pm/v1/g/+/dn/+"),
    "part.enrolment": ("read pm/v1/e/+/csr", "write pm/v1/e/+/cert"),
    # Ends the connection of a device whose certificate was revoked, and looks after the broker.
    "part.watch": ("read $SYS/#",),
}
DEVICE_PATTERNS = (
    "write pm/v1/m/%u/up/+",
    "read pm/v1/m/%u/dn/+",
    "write pm/v1/g/%u/up/+",
    "read pm/v1/g/%u/dn/+",
)
SALT_OCTETS = 12
# mosquitto_passwd's own number. The passwords are random, so that stretching them adds nothing.
HASH_ROUNDS = 101


@dataclass(frozen=True, slots=True)
class ServerTls:
    """PEM files of a TLS listener. With `ca` a client must show a certificate of that authority
    that is not in `revocations`.
    """

    certificate: Path
    private_key: Path
    ca: Path | None = None
    revocations: Path | None = None

    @property
    def asks_for_certificates(self) -> bool:
        return self.ca is not None

    def render(self) -> list[str]:
        lines = [
            f"certfile {self.certificate}",
            f"keyfile {self.private_key}",
            "tls_version tlsv1.2",
        ]
        if self.ca is not None:
            lines += [
                f"cafile {self.ca}",
                f"crlfile {self.revocations}",
                "require_certificate true",
                "use_identity_as_username true",
            ]
        return lines


@dataclass(frozen=True, slots=True)
class Listener:
    """One listening address: plain, with TLS, or with pre-shared keys. Beyond loopback never plain.

    `devices`: the client id is the user name, which must be a device's own.
    """

    port: int
    address: str = LOOPBACK
    tls: ServerTls | None = None
    pre_shared_keys: bool = False
    devices: bool = False

    def render(self) -> list[str]:
        """Lines of mosquitto.conf(5). Errors: `listener_open` for plain text beyond loopback."""
        if self.address != LOOPBACK and self.tls is None and not self.pre_shared_keys:
            message = f"A listener on {self.address} must use TLS: give its certificate."
            raise RuntimeUnavailableError("listener_open", message)
        lines = [f"listener {self.port} {self.address}"]
        if self.tls is not None:
            lines += self.tls.render()
        elif self.pre_shared_keys:
            lines += ["psk_hint prepaid", "use_identity_as_username true"]
        if self.devices:
            lines.append("use_username_as_clientid true")
        return lines


def render_configuration(
    state: Path,
    listeners: Sequence[Listener],
    access: Sequence[str] = (),
    *,
    count_refusals: bool = False,
    autosave_interval_s: int = AUTOSAVE_INTERVAL_S,
) -> str:
    """mosquitto.conf(5): what holds for all, access, then each listener.

    `access` is what names access list, passwords and keys. Without it anyone may do anything, so
    that only loopback is let in. `count_refusals` makes
    the log tell each denied publication, which `prepaid broker watch` counts.

    Not `per_listener_settings true`: a session that is away has no listener, so mosquitto 2.0 then
    refuses it every message and its queue stays empty. Certificates belong to a listener in any
    case, and the name in a certificate is the user that the access list knows.

    Errors: `listener_open`.
    """
    beyond = [each.address for each in listeners if each.address != LOOPBACK]
    if not access and beyond:
        message = f"A listener on {beyond[0]} would admit everybody: give an access list."
        raise RuntimeUnavailableError("listener_open", message)
    lines = [
        "# Written by prepaid; changes are lost.",
        f"pid_file {state}/mosquitto.pid",
        f"persistence_location {state}/",
        "log_dest stderr",
        *SETTINGS,
        f"autosave_interval {autosave_interval_s}",
        *(REFUSALS_IN_LOG if count_refusals else ()),
        f"allow_anonymous {'false' if access else 'true'}",
        *access,
    ]
    for listener in listeners:
        lines.extend(listener.render())
    return "\n".join(lines) + "\n"


def render_access_list(claims: Sequence[str] = ()) -> str:
    """acl_file of mosquitto.conf(5): what each device, each part and each of `claims` may do."""
    lines = ["# Written by prepaid; changes are lost."]
    lines += [f"pattern {right}" for right in DEVICE_PATTERNS]
    for part, rights in PARTS.items():
        lines += ["", f"user {part}", *(f"topic {right}" for right in rights)]
        # The patterns hold for parts too, and give them a device's topics below their own name.
        lines += [f"topic deny pm/v1/{side}/{part}/#" for side in "mg"]
    for claim in claims:
        lines += ["", f"user {claim}"]
        lines += [f"topic write pm/v1/e/{claim}/csr", f"topic read pm/v1/e/{claim}/cert"]
        lines += [f"topic deny pm/v1/{side}/{claim}/#" for side in "mg"]
    return "\n".join(lines) + "\n"


def password_line(user: str, password: str, salt: bytes | None = None) -> str:
    """A line of the password file, as mosquitto_passwd writes it: PBKDF2 with SHA-512."""
    salt = secrets.token_bytes(SALT_OCTETS) if salt is None else salt
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, HASH_ROUNDS)
    texts = (base64.b64encode(octets).decode() for octets in (salt, digest))
    return f"{user}:$7${HASH_ROUNDS}${'$'.join(texts)}"


def key_line(user: str, key: bytes) -> str:
    """A line of the file of pre-shared keys."""
    return f"{user}:{key.hex()}"


def users_of(text: str) -> Mapping[str, str]:
    """User name to line, of a password or key file."""
    return {line.partition(":")[0]: line for line in text.splitlines() if ":" in line}
