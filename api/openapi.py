"""The description that partners build against: the same for every installation."""

import json

from fastapi import FastAPI

from api.app import create_app
from api.settings import ApiSettings
from store.pool import make_pool
from tokens.security_module import SoftwareSecurityModule


def described_app() -> FastAPI:
    """An application to be described and not served."""
    return create_app(
        ApiSettings(),
        # Never opened: the description asks nothing of a database.
        pool=make_pool("", min_size=0),
        security_module=SoftwareSecurityModule({}),
        now_ms=lambda: 0,
        wall_s=lambda: 0,
        partners=(),
    )


def openapi_text() -> str:
    """OpenAPI 3.1 as JSON text, as `/openapi.json` says it, laid out for a diff."""
    app = described_app()
    return json.dumps(app.openapi(), indent=1, ensure_ascii=False) + "\n"
