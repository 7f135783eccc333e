"""The stack as a first draft would have it: one object, one model, one statement for each reading.

`python -m benchmarks.literal_stack FILTER COUNT`: says `ready` when subscribed, ends after COUNT
messages. It acknowledges on arrival, as its MQTT client does, and knows one flat price.
"""

import asyncio
import os
import sys
from datetime import datetime

import aiomqtt
import psycopg
from pydantic import BaseModel

from benchmarks.sql import statement
from meter_gateway.receiver import BrokerAddress

BATCH = 500


class Instant(BaseModel):
    """Instantaneous values."""

    P: int
    V: list[float]
    I: list[float]  # noqa: E741 - current is I on the wire


class Said(BaseModel):
    """One message."""

    v: int
    boot: int
    seq: int
    ts: datetime
    tq: str
    hist: bool
    reg: dict[str, int]
    inst: Instant
    relay: str
    rcpt: bool


def store(conn: psycopg.Connection, batch: list[tuple[str, Said]]) -> None:
    """Store and debit, one transaction a batch."""
    rows = [(meter, said.ts, said.reg["1.8.0"]) for meter, said in batch]
    with conn.transaction(), conn.cursor() as cursor:
        cursor.executemany(statement("literal_write_reading"), rows)
        entries = [(meter, ts, value, meter) for meter, ts, value in rows]
        cursor.executemany(statement("literal_write_entry"), entries)
        balances = [(value, value, meter) for meter, _, value in rows]
        cursor.executemany(statement("literal_write_balance"), balances)


async def run(topic_filter: str, count: int) -> None:
    address = BrokerAddress.parse(os.environ["PREPAID_BROKER__URL"])
    database = psycopg.connect(os.environ["PREPAID_DATABASE__URL"], autocommit=True)
    client = aiomqtt.Client(
        address.host, address.port, username=address.username, password=address.password
    )
    batch: list[tuple[str, Said]] = []
    with database as conn:
        async with client:
            await client.subscribe(topic_filter, qos=1)
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            async for message in client.messages:
                assert isinstance(message.payload, bytes)
                meter = message.topic.value.split("/")[2]
                batch.append((meter, Said.model_validate_json(message.payload)))
                count -= 1
                if len(batch) == BATCH or count == 0:
                    store(conn, batch)
                    batch = []
                if count == 0:
                    return


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], int(sys.argv[2])))
