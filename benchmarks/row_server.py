"""The floor of a balance: the same framework, server and pool, and one row by its key.

`python -m benchmarks.row_server`, with the database in PREPAID_DATABASE__URL, prints its address
and serves until SIGTERM.
"""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from api.server import address, listen
from benchmarks.sql import statement
from store.pool import make_pool


class Row(BaseModel):
    account: str
    balance_micro: int


def row_app(url: str) -> FastAPI:
    pool = make_pool(url)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        pool.open()
        yield
        pool.close()

    app = FastAPI(lifespan=lifespan)

    @app.get("/rows/{account}")
    def show_row(account: str) -> Row:
        with pool.connection() as conn:
            row = conn.execute(statement("row_of_account"), {"account": account}).fetchone()
        assert row is not None, "only what exists is asked for"
        return Row(account=account, balance_micro=row[0])

    return app


def main() -> None:
    with listen("127.0.0.1", 0) as listener:
        sys.stdout.write(f"{address(listener)}\n")
        sys.stdout.flush()
        config = uvicorn.Config(
            row_app(os.environ["PREPAID_DATABASE__URL"]),
            http="httptools",
            access_log=False,
            log_config=None,
        )
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
