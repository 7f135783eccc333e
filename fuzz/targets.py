"""What is fuzzed: each target takes any bytes and fails only where we do.

A refusal that the decoder documents is an answer; any other exception, an answer that outgrows its
input or a reason outside the list is a failure. `seeds` are well-formed, for mutation.
"""

import atexit
import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

import cbor2
from dlms_cosem.security import SecurityControlField, encrypt
from pydantic import SecretStr

from api.errors import Unauthorized
from api.settings import Partner
from api.signatures import Envelope, Signers, sign
from credit_engine.scenario import parse_scenario
from meter_gateway.foreign import device_profile as profile
from meter_gateway.foreign import dlms, json_messages
from meter_gateway.foreign.device_profile import DlmsProfile, JsonProfile, SparkplugProfile
from meter_gateway.foreign.keys import DeviceKeys, GlobalKey
from meter_gateway.foreign.sparkplug import NODES_MAX, SparkplugNodes
from meter_gateway.foreign.tahu import Payload
from prepaid.commands.rate import read_scenario
from schemas import topics
from schemas.decoding import CBOR, decode_up
from schemas.errors import DomainError
from schemas.telemetry import Decoded, PayloadError, Reason
from schemas.topics import KINDS, Topic
from tokens import codec, numbers
from tokens.credit import Credit, transfer_credit
from tokens.keys import DecoderKey

NOW_MS = 1_772_360_100_000
METER = "37000000017"
REASONS = frozenset(get_args(Reason))
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Target:
    """One decoder behind a function of bytes."""

    name: str
    check: Callable[[bytes], None]
    seeds: Sequence[bytes]


# --- the contract's messages --------------------------------------------------------------------

UP = [
    Topic(side, METER if side == "m" else "GW-1", "up", kind)
    for (side, direction), kinds in KINDS.items()
    if direction == "up"
    for kind in kinds
]
FORMS: Sequence[object] = [
    {"v": 1, "boot": 1, "seq": 2, "ts": "2026-03-01T10:15:00Z", "reg": {"1.8.0": 5}, "rcpt": True},
    [{"v": 1, "boot": 1, "seq": 2, "ts": "2026-03-01T10:15:00Z", "reg": {"1.8.0": -1}}, {"v": 2}],
    {"v": 1, "t0": "2026-03-01T10:00:00Z", "dt": 900, "cols": ["1.8.0"],
     "rows": [[METER, 17, 9, [[1], None, [2]]], [METER, 3, 1, [[3]]]]},
    {"v": 1, "cmd": "c-1", "state": "done", "ts": "2026-03-01T10:15:00Z", "relay": "open",
     "token": {"format": True, "authentication": True, "validation": True, "execution": True,
               "result": "Accept"}},
    {"v": 1, "boot": 3, "ts": "2026-03-01T10:15:00Z", "model": "m", "reg": {"1.8.0": 5}},
    {"v": 1, "type": "tamper", "ts": "2026-03-01T10:15:00Z", "info": {"a": 1}},
    {"v": 1, "t1": 5},
    "online",
]  # fmt: skip


def _judge(decoded: Decoded, payload: bytes) -> None:
    for refused in decoded.refused:
        assert refused.reason in REASONS, refused.reason
        assert len(refused.detail) < 1000
        assert refused.detail.isprintable()
    # A row costs its refusal some words; nothing grows faster than what came in.
    assert len(decoded.refused) <= len(payload) + 1
    assert len(decoded.readings) <= len(payload) + 1


def _up(content_type: str | None) -> Callable[[bytes], None]:
    def check(data: bytes) -> None:
        topic = UP[data[0] % len(UP)] if data else UP[0]
        _judge(decode_up(topic, data[1:], content_type, NOW_MS), data)

    return check


def check_topic(data: bytes) -> None:
    """A topic is refused, or is the text that its parts make."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        parsed = topics.parse(text)
    except DomainError:
        return
    assert topics.build(parsed) == text


# --- foreign devices ----------------------------------------------------------------------------


@cache
def profiles() -> list[JsonProfile | DlmsProfile | SparkplugProfile]:
    return [profile.load(name) for name in profile.names()]


def check_json_profiles(data: bytes) -> None:
    """A foreign payload is refused, says nothing, or gives integers that a database can hold."""
    for found in profiles():
        if not isinstance(found, JsonProfile):
            continue
        for message in found.messages:
            with contextlib.suppress(PayloadError):
                said = json_messages.read(message, "d", data)
                for whole in getattr(said, "registers", {}).values():
                    assert type(whole) is int
                    assert abs(whole) < 1 << 63


def check_profile_file(data: bytes) -> None:
    """A profile is refused with one sentence, or is sound."""
    with contextlib.suppress(DomainError):
        assert profile.parse(data.decode("utf-8", "replace"), "file").filters


KEYS = DeviceKeys(GlobalKey(bytes(range(16))), GlobalKey(bytes(range(16, 32))))
PUSH = bytes.fromhex(
    "0f00000001000205090600000100"
    "00ff090c07ea0301070a0f0000000000"
    "09060100010800ff060000271002020f00161e"
)


def _ciphered() -> bytes:
    control = SecurityControlField.from_bytes(b"\x30")
    secret = (KEYS.encryption.reveal(), PUSH, KEYS.authentication.reveal())
    content = b"\x30\0\0\0\x05" + encrypt(control, b"TITLE\0\0\1", 5, *secret)
    return b"\xdb\x08TITLE\0\0\1" + bytes([len(content)]) + content


def check_dlms(data: bytes) -> None:
    """A frame is refused or read; what is read stays inside the frame."""
    for found in profiles():
        if isinstance(found, DlmsProfile):
            with contextlib.suppress(PayloadError):
                dlms.read(found, "d", dlms.open_push(found, data, KEYS))


def _nodes() -> SparkplugNodes:
    [found] = [each for each in profiles() if isinstance(each, SparkplugProfile)]
    return SparkplugNodes(found)


@cache
def _shared_nodes() -> list[SparkplugNodes]:
    return [_nodes()]


KINDS_B = ("NBIRTH/N", "NDATA/N", "NDEATH/N", "DBIRTH/N/D", "DDATA/N/D", "DDEATH/N/D")


def check_sparkplug(data: bytes) -> None:
    """Any message in any order: refused or read, and the state stays bounded."""
    nodes = _shared_nodes()[0]
    kind = KINDS_B[data[0] % len(KINDS_B)] if data else KINDS_B[0]
    with contextlib.suppress(PayloadError):
        outcome = nodes.read(f"spBv1.0/meters/{kind}{data[:1].hex()}", data[1:], NOW_MS)
        assert {each.reason for each in outcome.refused} <= REASONS
    assert len(nodes._nodes) <= NODES_MAX  # noqa: SLF001 - the bound is what is judged


def _sparkplug_seeds() -> Sequence[bytes]:
    birth = Payload(timestamp=NOW_MS, seq=0)
    birth.metrics.add(name="bdSeq", datatype=8, long_value=1)
    born = Payload(timestamp=NOW_MS, seq=1)
    born.metrics.add(name="Energy/Active Import", alias=1, datatype=10, double_value=1.5)
    data = Payload(timestamp=NOW_MS, seq=2)
    data.metrics.add(alias=1, double_value=2.5, is_historical=True)
    pairs = ((0, birth), (3, born), (4, data), (2, birth))
    return [bytes([kind]) + message.SerializeToString() for kind, message in pairs]


# --- tokens, signatures, scenarios --------------------------------------------------------------

DECODER_KEY = DecoderKey(bytes(range(16)))


def check_token(data: bytes) -> None:
    """Digits are a token of this key or are refused; so is any number of the standard."""
    text = data.decode("utf-8", "replace")
    for read in (
        lambda: codec.decode(text, DECODER_KEY),
        lambda: codec.decode_clear(text),
        lambda: numbers.check_digit(text),
    ):
        with contextlib.suppress(DomainError):
            read()


def _token_seeds() -> Sequence[bytes]:
    credit = transfer_credit(Credit(0, 125), tid=6_400_002, rnd=3)
    return [codec.encode(credit, DECODER_KEY).encode(), b"0" * 20, METER.encode()]


SECRET = SecretStr("whsec_" + "QUJD" * 8)
SIGNERS = Signers([Partner("bank", "Bank", (SECRET,))])


def check_signature(data: bytes) -> None:
    """Headers and body, parted by NUL: nothing that was changed is believed."""
    # HTTP headers reach us as Latin-1.
    parts = [part.decode("latin-1") for part in data.split(b"\0", 4)]
    head, body = (parts + [""] * 5)[:4], data.split(b"\0", 4)[4:]
    signed = body[0] if body else b""
    try:
        SIGNERS.verify(Envelope(*head), signed, NOW_MS / 1000)
    except Unauthorized:
        return
    assert (head[0], signed) == ("bank", b"{}")


def _signature_seed() -> bytes:
    stamp = NOW_MS // 1000
    signature = sign(SECRET.get_secret_value(), "m-1", stamp, b"{}")
    return b"\0".join([b"bank", b"m-1", str(stamp).encode(), signature.encode(), b"{}"])


@cache
def _file() -> Path:
    folder = tempfile.mkdtemp(prefix="prepaid-fuzz-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder) / "scenario.yaml"


def check_scenario(data: bytes) -> None:
    """A scenario file is refused with one sentence, or is parsed."""
    _file().write_bytes(data)
    with contextlib.suppress(DomainError):
        parse_scenario(read_scenario(str(_file())))


def _json_seeds() -> Sequence[bytes]:
    return [
        b'{"Time":"2022-01-11T21:57:38","ENERGY":{"Total":3.705,"Power":5}}',
        b'{"params":{"ts":1678699440.94,"emdata:0":{"total_act":20269.29,"total_act_ret":0.0}}}',
        b'{"id":0,"total_act":20269.29,"total_act_ret":0.00}',
        b"Online",
    ]


def _each(encode: Callable[[Any], bytes]) -> Sequence[bytes]:
    return [bytes([place]) + encode(form) for form in FORMS for place in range(len(UP))]


def targets() -> dict[str, Target]:
    """All decoders by name."""
    scenarios = sorted((ROOT / "tests/data/scenarios").glob("a0*.yaml"))
    files = sorted((ROOT / "meter_gateway/profiles").glob("*.yaml"))
    found = [
        Target(
            "topics", check_topic, [f"pm/v1/m/{METER}/up/reading".encode(), b"pm/v1/g/G/dn/cmd"]
        ),
        Target("json", _up(None), _each(lambda form: json.dumps(form).encode())),
        Target("cbor", _up(CBOR), _each(cbor2.dumps)),
        Target("json-profiles", check_json_profiles, _json_seeds()),
        Target("profile-files", check_profile_file, [path.read_bytes() for path in files]),
        Target(
            "dlms", check_dlms, [PUSH, _ciphered(), b"\0\1\0\1\0\1\0" + bytes([len(PUSH)]) + PUSH]
        ),
        Target("sparkplug", check_sparkplug, _sparkplug_seeds()),
        Target("tokens", check_token, _token_seeds()),
        Target("signatures", check_signature, [_signature_seed()]),
        Target("scenarios", check_scenario, [path.read_bytes() for path in scenarios[:6]]),
    ]
    return {target.name: target for target in found}
