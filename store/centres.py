"""What operators set per centre: guards before a cut, how supply comes back, the fleet brake."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from psycopg import Connection
from psycopg.types.json import Jsonb

from credit_engine.guards import CutRules
from store import audit_log
from store.errors import Conflict, NotFound
from store.sql import query

Reconnect = Literal["close", "arm"]
HOUR_MS = 3_600_000
MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class CentreSettings:
    """None switches a rule off. Every number is whole and not negative.

    `reading_hours`: nobody is cut whose newest accepted reading is older. `notice_hours`: notice
    comes so long before a cut. `payment_hours`: a payment that is not credited yet keeps a supply
    on. `clock_margin_minutes`: how far a meter's clock may be off. `reconnect`: `arm` lets the
    customer close the switch by the button. `brake_percent` of the centre's accounts, and at least
    `brake_least`, cut within `brake_minutes` pull the brake. `credit_tolerance_wh`: so far the
    meter's own credit may differ from the tokens that it took.
    """

    reading_hours: int | None = 48
    notice_hours: int | None = None
    payment_hours: int = 24
    clock_margin_minutes: int = 15
    reconnect: Reconnect = "close"
    brake_percent: int | None = 20
    brake_least: int = 50
    brake_minutes: int = 60
    credit_tolerance_wh: int = 200

    def __post_init__(self) -> None:
        """Errors: Conflict `setting_refused`."""
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == "reconnect":
                if value not in get_args(Reconnect):
                    raise Conflict("setting_refused", "set reconnect to close or arm")
            elif value is None and each.name in OPTIONAL:
                continue
            elif type(value) is not int or value < 0:
                raise Conflict(
                    "setting_refused", f"set {each.name} to a whole number from 0 on"
                    + (", or to null" if each.name in OPTIONAL else "")
                )  # fmt: skip

    @property
    def cut_rules(self) -> CutRules:
        """The part that the guards ask."""
        return CutRules(
            reading_age_ms=None if self.reading_hours is None else self.reading_hours * HOUR_MS,
            notice_ms=None if self.notice_hours is None else self.notice_hours * HOUR_MS,
            payment_ms=self.payment_hours * HOUR_MS,
            clock_margin_ms=self.clock_margin_minutes * MINUTE_MS,
        )


OPTIONAL = frozenset({"reading_hours", "notice_hours", "brake_percent"})
DEFAULTS = asdict(CentreSettings())


def settings_of(conn: Connection, centres: Iterable[int]) -> dict[int, CentreSettings]:
    """The settings of these centres."""
    rows = conn.execute(query("settings_of_centres"), {"centres": sorted(set(centres))})
    return {centre: CentreSettings(**_known(form)) for centre, form in rows}


def settings_of_code(conn: Connection, code: str) -> CentreSettings:
    """The settings of the centre with this code. Errors: NotFound."""
    row = conn.execute(query("settings_of_centre"), {"code": code}).fetchone()
    if row is None:
        raise NotFound(f"Centre {code}")
    return CentreSettings(**_known(row[0]))


def change(
    conn: Connection, code: str, changes: Mapping[str, Any], *, by: str, now_ms: int
) -> CentreSettings:
    """Set some settings of a centre. Errors: NotFound; Conflict `setting_refused`."""
    unknown = sorted(set(changes) - DEFAULTS.keys())
    if unknown:
        raise Conflict("setting_refused", f"{unknown[0]} is no setting: {', '.join(DEFAULTS)} are")
    with conn.transaction():
        conn.execute(query("lock_centre_of_code"), {"code": code})
        old = asdict(settings_of_code(conn, code))
        new = CentreSettings(**{**old, **changes})
        kept = {name: value for name, value in asdict(new).items() if value != DEFAULTS[name]}
        conn.execute(query("set_centre"), {"code": code, "settings": Jsonb(kept)})
        before = {name: old[name] for name in changes}
        audit_log.record(
            conn, by, "centre.set", f"centre:{code}", now_ms, before=before, after=changes
        )
    return new


def _known(form: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a newer version are left to it."""
    return {name: value for name, value in form.items() if name in DEFAULTS}
