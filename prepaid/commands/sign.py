"""`prepaid sign BODY`: the headers by which a partner's request is known, for curl."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from prepaid.demo.payers import PartnerClient
from prepaid.settings import Settings
from schemas.errors import DomainError


def register(app: typer.Typer) -> None:
    app.command()(sign)


def sign(
    body: Annotated[str, typer.Argument(help="The exact body of the request; empty for a GET.")],
    partners: Annotated[
        Path | None,
        typer.Option(help="Partners file; the first partner signs. Else PREPAID_PARTNERS__FILE."),
    ] = None,
) -> None:
    """Sign one request as the first partner of the file: headers, one a line, for `curl -H @-`.

    Valid for five minutes. Standard Webhooks, as in api.md section 3.
    """
    path = partners if partners is not None else Settings().partners.file
    if path is None:
        raise DomainError("not_configured", "name the file: --partners, or PREPAID_PARTNERS__FILE")
    for name, value in PartnerClient.from_file("", path).headers(body.encode()).items():
        sys.stdout.write(f"{name}: {value}\n")
