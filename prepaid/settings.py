"""One tree of settings, from the environment (`PREPAID_`, nested by `__`), built once per command.

Packages below get plain values; secrets are SecretStr until the moment they are used.
"""

from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from api.settings import ENGINEERING_PER_DAY, ApiSettings
from schemas.contacts import PhonePlan
from schemas.errors import DomainError
from schemas.quantities import parse_micro


class Server(BaseModel):
    """Where a server is: the URL may hold a password, so it is a secret."""

    model_config = ConfigDict(frozen=True)

    url: SecretStr | None = None


class Database(Server):
    """`url`: what the programs connect as, a member of prepaid_app. `owner_url`: what migrates;
    without it, `url`.
    """

    owner_url: SecretStr | None = None


class Broker(Server):
    """The broker as the receiving side connects to it; the other URLs where a part has a user of
    its own: sending, enrolment, and `watch`, which ends connections. Files are PEM; `server_name`
    is the name that the broker's certificate must carry where that is not the URL's host.
    """

    # Where messages are taken from, if that is another place: a queue of RabbitMQ, amqp://...
    ingest_url: SecretStr | None = None
    dispatch_url: SecretStr | None = None
    enrolment_url: SecretStr | None = None
    watch_url: SecretStr | None = None
    ca: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    dispatch_certificate: Path | None = None
    dispatch_private_key: Path | None = None
    server_name: str | None = None
    # The folder that `prepaid broker config` wrote: access lists, revocations, the broker's pid.
    folder: Path | None = None


class Trust(BaseModel):
    """The certificate authority's folder and the file with the passphrase of its key, and the key
    that commands are signed with.
    """

    model_config = ConfigDict(frozen=True)

    ca: Path | None = None
    ca_passphrase_file: Path | None = None
    signing_key: Path | None = None


class Sts(BaseModel):
    """Vending keys: a sealed key file (`prepaid token new-key-file`) and what opens it, or a file
    of keys that a PKCS#11 token wrapped (`prepaid hsm wrap`) and that token. With `socket` they are
    in the process of `prepaid security-module` alone, and everybody else asks there.

    `tables`: the licensed EA07 tables, a file as `prepaid token issue --tables` takes; beside the
    keys. Without them EA07 tokens are made with the sample set, which no real meter understands.
    """

    model_config = ConfigDict(frozen=True)

    key_file: Path | None = None
    key_passphrase: SecretStr | None = None
    wrapped_keys: Path | None = None
    pkcs11_library: Path | None = None
    pkcs11_token: str | None = None
    pkcs11_pin: SecretStr | None = None
    socket: Path | None = None
    tables: Path | None = None


class Partners(BaseModel):
    """Signing secrets of banks and wallets: a JSON file, readable by us alone. `timezone`: where a
    business date begins and ends; `currency`: of a payment for a meter that nobody has.
    """

    model_config = ConfigDict(frozen=True)

    file: Path | None = None
    timezone: str = "Africa/Nouakchott"
    currency: str = Field(default="MRU", pattern=r"^[A-Z]{3}$")

    def zone(self) -> ZoneInfo:
        """Errors: DomainError `not_configured`, no such zone."""
        try:
            return ZoneInfo(self.timezone)
        except (ValueError, ZoneInfoNotFoundError):
            raise DomainError(
                "not_configured",
                f"PREPAID_PARTNERS__TIMEZONE is no zone: {self.timezone!r:.60}. Name one such as "
                "Africa/Nouakchott",
            ) from None


class Payments(BaseModel):
    """The ways in which customers pay themselves, with their secrets: a JSON file, readable by us
    alone (docs/payments.md). `return_url`: the customers' pages, to which a browser goes on.
    """

    model_config = ConfigDict(frozen=True)

    file: Path | None = None
    return_url: str | None = None


class Commands(BaseModel):
    """The pace of each gateway: so many commands unanswered at once, and a pause between two."""

    model_config = ConfigDict(frozen=True)

    at_once: int = Field(default=5, ge=1)
    spacing_ms: int = Field(default=2000, ge=0)


class Api(BaseModel):
    """Bounds on what callers may send, and who stands between them and us."""

    model_config = ConfigDict(frozen=True)

    requests_per_minute: int = Field(default=1200, ge=1)
    requests_per_minute_of_address: int = Field(default=6000, ge=1)
    # Event streams at once, of the process and of one caller.
    streams: int = Field(default=500, ge=0)
    streams_per_caller: int = Field(default=4, ge=1)
    # Addresses of proxies whose X-Forwarded-For is believed, separated by commas.
    trusted_proxies: str = ""


class Customers(BaseModel):
    """Whose phones are sent codes, how codes reach them, and how long ended contacts are kept.

    `code_delivery`: `none` leaves codes in the outbox for another process; `demonstration` writes
    them to the log of the API, where anybody with the log can sign in as anybody: for a
    demonstration alone.
    """

    model_config = ConfigDict(frozen=True)

    calling_code: str = PhonePlan().calling_code
    mobile: str = PhonePlan().mobile
    code_delivery: Literal["none", "demonstration"] = "none"
    keep_contacts_days: int = Field(default=395, ge=0)


class Engineering(BaseModel):
    """How many engineering tokens one operator of a role may ask for in a day."""

    model_config = ConfigDict(frozen=True)

    desk: int = Field(default=ENGINEERING_PER_DAY["desk"], ge=0)
    field: int = Field(default=ENGINEERING_PER_DAY["field"], ge=0)
    supervisor: int = Field(default=ENGINEERING_PER_DAY["supervisor"], ge=0)
    admin: int = Field(default=ENGINEERING_PER_DAY["admin"], ge=0)


class Adapter(BaseModel):
    """The adapter's own broker user, and the file of the key that seals DLMS keys."""

    model_config = ConfigDict(frozen=True)

    broker_url: SecretStr | None = None
    key_file: Path | None = None


class Settings(BaseSettings):
    """`PREPAID_DATABASE__URL`, `PREPAID_BROKER__URL`, `PREPAID_STS__KEY_FILE`, ..."""

    model_config = SettingsConfigDict(
        env_prefix="PREPAID_", env_nested_delimiter="__", frozen=True, extra="ignore"
    )

    database: Database = Database()
    broker: Broker = Broker()
    trust: Trust = Trust()
    sts: Sts = Sts()
    partners: Partners = Partners()
    payments: Payments = Payments()
    commands: Commands = Commands()
    api: Api = Api()
    customers: Customers = Customers()
    engineering: Engineering = Engineering()
    adapter: Adapter = Adapter()
    # WALL_ORIGIN_MS:ORIGIN_MS:SPEED for a demonstration that runs faster; empty: the wall clock.
    clock: str = ""
    # Readings older than this are dropped; nothing else is ever dropped.
    keep_readings_days: int | None = Field(default=None, ge=40)

    # Cash is rounded to the smallest coin, per currency: 1 ouguiya is 5 khoums. Others: exact.
    cash_coins: dict[str, str] = {"MRU": "0.20"}

    def coin_micro(self, currency: str) -> int | None:
        """The smallest coin of a currency, in micro-units; None where every amount is counted.

        Errors: DomainError `bad_amount`.
        """
        coin = self.cash_coins.get(currency)
        return None if coin is None else parse_micro(coin)

    def api_settings(self) -> ApiSettings:
        """What the API is made with. Errors: DomainError `bad_phone_plan`."""
        return ApiSettings(
            engineering_per_day=self.engineering.model_dump(),
            requests_per_minute=self.api.requests_per_minute,
            requests_per_minute_of_address=self.api.requests_per_minute_of_address,
            return_url=self.payments.return_url,
            business_zone=self.partners.zone(),
            currency=self.partners.currency,
            phone_plan=PhonePlan(self.customers.calling_code, self.customers.mobile),
            streams=self.api.streams,
            streams_per_caller=self.api.streams_per_caller,
        )

    def database_url(self) -> str:
        """Errors: DomainError `not_configured`."""
        return _given(self.database.url, "PREPAID_DATABASE__URL")

    def owner_url(self) -> str:
        """Who migrates. Errors: DomainError `not_configured`."""
        owner = self.database.owner_url
        return self.database_url() if owner is None else owner.get_secret_value()

    def broker_url(self) -> str:
        """Errors: DomainError `not_configured`."""
        return _given(self.broker.url, "PREPAID_BROKER__URL")

    def adapter_broker_url(self) -> str:
        """The adapter's own user where it has one. Errors: DomainError `not_configured`."""
        return _given(self.adapter.broker_url or self.broker.url, "PREPAID_ADAPTER__BROKER_URL")


def _given(url: SecretStr | None, name: str) -> str:
    if url is None:
        raise DomainError(
            "not_configured",
            f"{name} is not set: set it, or start everything with `prepaid up`",
        )
    return url.get_secret_value()
