"""The ways in which customers pay, from a file of secrets, and the desk that serves them."""

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
)

from payments.aggregator import DIALECTS, Aggregator, AggregatorSettings
from payments.bpay import BPay, BPaySettings
from payments.desk import Cash, PaymentDesk
from payments.hosted import HostedPage, HostedSettings
from payments.port import Connector
from payments.sweep import sweep
from prepaid.secrets_files import read_secret
from prepaid.settings import Settings
from schemas.errors import DomainError
from store.payment_words import Ears
from store.pool import make_pool
from store.terms import TermsCache
from tokens.security_module import SecurityModule

POOL_MAX = 8


def _safe_url(text: str) -> str:
    """Secrets travel to it: encrypted, or to this machine."""
    parts = urlsplit(text)
    if parts.scheme == "https" or (
        parts.scheme == "http" and parts.hostname in {"127.0.0.1", "::1", "localhost"}
    ):
        return text.rstrip("/")
    raise ValueError("write an https address, or one of this machine")


Url = Annotated[str, AfterValidator(_safe_url)]
Code = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=60)]
TimeoutS = Annotated[int, Field(ge=1, le=120)]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BPayForm(_Form):
    """Bankily B-PAY."""

    kind: Literal["bpay"]
    code: Code
    name: Name
    url: Url
    merchant: str
    username: str
    password: SecretStr
    client: str
    language: Literal["EN", "FR", "AR"] = "FR"
    timeout_s: TimeoutS = 50


class HostedForm(_Form):
    """Masrvi, Click: `sources` are the networks that notifications come from."""

    kind: Literal["hosted"]
    code: Code
    name: Name
    url: Url
    page: Url
    merchant: SecretStr
    sources: tuple[IPv4Network | IPv6Network, ...] = Field(min_length=1)
    brand: str
    check_path: str | None = None
    timeout_s: TimeoutS = 20


class AggregatorForm(_Form):
    """Moosyl, Muamla: `keys` are those of their signatures, the new one and the old."""

    kind: Literal["aggregator"]
    code: Code
    name: Name
    url: Url
    dialect: Literal["muamla", "moosyl"]
    access_key: SecretStr
    keys: tuple[Annotated[SecretStr, Field(min_length=16)], ...] = Field(min_length=1)
    looks_up: bool = False
    timeout_s: TimeoutS = 20


class CashForm(_Form):
    """Tills of the utility's desks."""

    kind: Literal["cash"]
    code: Code
    name: Name


class PaymentsFile(_Form):
    """`public_url`: where channels and browsers reach our API."""

    public_url: Url
    methods: tuple[
        Annotated[BPayForm | HostedForm | AggregatorForm | CashForm, Field(discriminator="kind")],
        ...,
    ]


def load_payments_file(path: Path) -> PaymentsFile:
    """Errors: DomainError `secret_file`, which says where and never what."""
    try:
        return PaymentsFile.model_validate_json(read_secret(path))
    except ValidationError as error:
        first = error.errors(include_input=False, include_context=False, include_url=False)[0]
        place = ".".join(str(each) for each in first["loc"]) or "the file"
        raise DomainError("secret_file", f"{path}: {place}: {first['msg']}") from None


def make_connectors(file: PaymentsFile) -> list[Connector]:
    """A connector for each method that a channel serves, in the order of the file."""
    found: list[Connector] = []
    for form in file.methods:
        returns = f"{file.public_url}/v1/payments/{form.code}/returns"
        given = form.model_dump(exclude={"kind"})
        if isinstance(form, BPayForm):
            found.append(BPay(BPaySettings(**given)))
        elif isinstance(form, HostedForm):
            found.append(HostedPage(HostedSettings(**given, returns=returns)))
        elif isinstance(form, AggregatorForm):
            dialect = DIALECTS[form.dialect]
            settings = AggregatorSettings(**{**given, "dialect": dialect}, returns=returns)
            found.append(Aggregator(settings))
    return found


def make_cash(file: PaymentsFile, settings: Settings) -> Cash | None:
    """The tills, with the smallest coins of `PREPAID_CASH_COINS`. Errors: DomainError."""
    forms = [form for form in file.methods if isinstance(form, CashForm)]
    if len(forms) > 1:
        raise DomainError("secret_file", "name one method of kind cash")
    coins = {each: settings.coin_micro(each) or 1 for each in settings.cash_coins}
    return Cash(forms[0].code, forms[0].name, coins) if forms else None


@contextmanager
def serving_payments(
    settings: Settings,
    module: SecurityModule,
    now_ms: Callable[[], int],
    wall_ms: Callable[[], int],
    partner_codes: Collection[str] = (),
) -> Iterator[PaymentDesk | None]:
    """The desk with its sweep, on connections of its own; None where no file is configured.

    Errors: DomainError `secret_file`, also for a method with the code of a partner: a channel
    numbers its payments in one way.
    """
    if settings.payments.file is None:
        yield None
        return
    file = load_payments_file(settings.payments.file)
    codes = [form.code for form in file.methods]
    shared = sorted({each for each in codes if codes.count(each) > 1 or each in partner_codes})
    if shared:
        raise DomainError(
            "secret_file", f"{shared[0]} names two channels: give each a code of its own"
        )
    pool = make_pool(settings.database_url(), min_size=1, max_size=POOL_MAX)
    pool.open(wait=False)
    stopping = threading.Event()
    ears = Ears(TermsCache(), module, now_ms, wall_ms)
    try:
        cash = make_cash(file, settings)
        with PaymentDesk(make_connectors(file), cash, pool=pool, ears=ears) as desk:
            sweeper = threading.Thread(target=sweep, args=(desk, pool, stopping), name="sweep")
            sweeper.start()
            try:
                yield desk
            finally:
                stopping.set()
                sweeper.join()
    finally:
        pool.close()
