"""A meter's side of enrolment: a key of its own, a request under a claim, a certificate.

The private key is made here and never leaves; the claim certificate is the factory's. The meter
subscribes before it asks, so that no answer is lost, and asks again until it is answered.
"""

import asyncio
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

import aiomqtt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import TypeAdapter, ValidationError

from schemas import wire
from schemas.commands import encode
from schemas.errors import DomainError
from schemas.topics import enrolment_topics

# Real seconds between two requests, and how often a meter asks before somebody must look.
ASK_AGAIN_S = 5.0
TIMES = 6

_ANSWER: TypeAdapter[wire.EnrolmentAnswer] = TypeAdapter(wire.EnrolmentAnswer)


@dataclass(frozen=True, slots=True)
class Claim:
    """Where to ask, and the factory's claim certificate; PEM files. `name` is `claim.NAME`."""

    host: str
    port: int
    ca: Path
    name: str
    certificate: Path
    private_key: Path


async def enrol(claim: Claim, meter: str, folder: Path) -> tuple[Path, Path]:
    """Files of the meter's certificate and private key, in `folder`; a key that is there is kept.

    Raises DomainError with the server's code, or `not_answered`; MqttError without a broker.
    """
    key = _key(folder / f"{meter}.key")
    content = encode({"v": 1, "meter": meter, "csr": _request(key, meter)})
    ask_on, listen_on = enrolment_topics(claim.name)
    context = ssl.create_default_context(cafile=claim.ca)
    context.load_cert_chain(claim.certificate, claim.private_key)
    async with aiomqtt.Client(
        claim.host, claim.port, identifier=claim.name, tls_context=context
    ) as client:
        await client.subscribe(listen_on, qos=1)
        for _ in range(TIMES):
            await client.publish(ask_on, content, qos=1)
            try:
                async with asyncio.timeout(ASK_AGAIN_S):
                    certificate = await _answer(client, meter)
            except TimeoutError:
                continue
            path = folder / f"{meter}.pem"
            path.write_text(certificate, encoding="ascii")
            return path, folder / f"{meter}.key"
    raise DomainError("not_answered", f"Nobody answers meter {meter}: is the enrolment running?")


async def _answer(client: aiomqtt.Client, meter: str) -> str:
    async for message in client.messages:
        data = message.payload if isinstance(message.payload, bytes) else b""
        try:
            answer = _ANSWER.validate_json(data)
        except ValidationError:
            continue
        if answer["meter"] != meter:
            continue  # another meter asks under the same claim
        if "certificate" in answer:
            return answer["certificate"]
        code = answer.get("refused", "refused")
        raise DomainError(code, f"Meter {meter} gets no certificate: {code}.")
    raise DomainError("not_answered", "The broker ended the connection.")


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    if path.exists():
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey), "we write no other"
        return key
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
    return key


def _request(key: ec.EllipticCurvePrivateKey, meter: str) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, meter)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode("ascii")
