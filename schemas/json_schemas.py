"""JSON Schema (2020-12) of the wire forms, for those who write firmware and adapters."""

import json

from pydantic import TypeAdapter

from schemas import wire

FORMS: dict[str, type] = {
    "up-reading": wire.Reading,
    "up-batch": wire.Batch,
    "up-ack": wire.Ack,
    "up-hello": wire.Hello,
    "up-event": wire.Event,
    "up-time": wire.TimeRequest,
    "enrolment-csr": wire.EnrolmentRequest,
    "enrolment-cert": wire.EnrolmentAnswer,
    "dn-cmd": wire.Command,
    "dn-cfg": wire.Configuration,
    "dn-receipt": wire.Receipt,
    "dn-receipt-gateway": wire.GatewayReceipt,
    "dn-time": wire.TimeAnswer,
}


def json_schemas() -> dict[str, str]:
    """File name -> text, for each form."""
    schemas: dict[str, str] = {}
    for name, form in FORMS.items():
        schema = TypeAdapter[object](form).json_schema()
        dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
        schemas[f"{name}.json"] = json.dumps({**dialect, **schema}, indent=2) + "\n"
    return schemas
