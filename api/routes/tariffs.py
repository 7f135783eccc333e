"""Tariffs: versions, drafts that a second person approves, and what a version would have cost."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path

from api import answers
from api.admission import KnownFirst
from api.answers import Amount, Answer, Instant, Money
from api.dependencies import (
    PAGE_DEFAULT,
    Allowed,
    Around,
    Cursor,
    Database,
    Limit,
    Operator,
    RowId,
    name_of,
)
from api.errors import RequestRefused
from api.numbers import cursor_id
from api.requests import DraftRequest, ReasonRequest, SimulationRequest
from credit_engine.errors import CreditError
from schemas.quantities import format_instant, format_micro
from store import impact, tariffs, worklists
from store.impact import Impact, Simulation
from store.reads import Principal
from store.worklists import Draft, DraftState, TariffReport

router = APIRouter(prefix="/v1", tags=["operators"], route_class=KnownFirst)

# Prices hold in every centre: whoever sets them is of every centre.
Pricing = Annotated[Principal, Depends(Allowed("finance", "admin", everywhere=True))]
Simulating = Annotated[Principal, Depends(Allowed("finance", "auditor", "admin", everywhere=True))]
TariffCode = Annotated[str, Path(max_length=64, pattern=r"^[!-~]+$")]
DraftId = RowId
# Beyond this many accounts a request would last too long: `prepaid tariff impact` takes any number.
SIMULATED_ACCOUNTS = 1000
# Those whose bill moves most are named.
NAMED_ACCOUNTS = 20


class TariffAnswer(Answer):
    """`versions` in the form of the rating contract, section 10; each holds from its date on."""

    code: str
    name: str
    currency: str
    timezone: str
    accounts: int
    versions: list[dict[str, Any]]
    as_of: Instant


class TariffList(Answer):
    items: list[TariffAnswer]


class DraftAnswer(Answer):
    id: int
    tariff: str
    version: dict[str, Any]
    note: str
    state: DraftState
    drafted_by: str
    drafted_at: Instant
    decided_by: str | None
    decided_at: Instant | None


class DraftPage(Answer):
    items: list[DraftAnswer]
    next_cursor: str | None


class ImpactAnswer(Answer):
    """Charges with taxes on the energy that was really used; `difference` above zero: dearer."""

    account: str
    energy_wh: int
    old: Amount
    new: Amount
    difference: Amount


class SimulationAnswer(Answer):
    """`moved_most`: the accounts whose bill changes most."""

    tariff: str
    accounts: int
    dearer_for: int
    energy_wh: int
    old: Money
    new: Money
    difference: Money
    moved_most: list[ImpactAnswer]


@dataclass(slots=True)
class _Total:
    energy_wh: int = 0
    old_micro: int = 0
    new_micro: int = 0
    dearer: int = 0

    def add(self, one: Impact) -> None:
        self.energy_wh += one.energy_wh
        self.old_micro += one.old_micro
        self.new_micro += one.new_micro
        self.dearer += one.difference_micro > 0


@router.get("/tariffs")
def list_tariffs(conn: Database, around: Around, caller: Operator) -> TariffList:
    """Every tariff with its versions."""
    now_ms = around.now_ms()
    return TariffList(items=[_tariff_answer(each, now_ms) for each in worklists.tariffs(conn)])


@router.get("/tariffs/{tariff}")
def show_tariff(
    conn: Database, around: Around, caller: Operator, tariff: TariffCode
) -> TariffAnswer:
    """One tariff with its versions."""
    return _tariff_answer(worklists.tariff(conn, tariff), around.now_ms())


@router.post("/tariffs/{tariff}/drafts", status_code=201)
def draft_version(
    conn: Database, around: Around, caller: Pricing, tariff: TariffCode, body: DraftRequest
) -> DraftAnswer:
    """Proposes a version from a local date on; nothing is priced by it until it is approved."""
    version = _dated(body.version)
    try:
        number = tariffs.draft(
            conn, tariff, version, note=body.note, who=name_of(caller), now_ms=around.now_ms()
        )
    except CreditError as error:
        raise RequestRefused(error.code, str(error), "/version") from None
    return _draft_answer(worklists.draft(conn, number))


@router.get("/tariff-drafts")
def list_drafts(
    conn: Database,
    caller: Operator,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
    state: DraftState | None = None,
) -> DraftPage:
    """Drafts of every tariff, newest first; those `drafted` wait for a second person."""
    found = worklists.drafts(conn, state=state, before_id=cursor_id(cursor), limit=limit)
    items, following = answers.page(found, limit, lambda each: str(each.id))
    return DraftPage(items=[_draft_answer(each) for each in items], next_cursor=following)


@router.post("/tariff-drafts/{draft}/approval")
def approve_draft(
    conn: Database,
    around: Around,
    caller: Pricing,
    draft: DraftId,
    body: ReasonRequest | None = None,
) -> DraftAnswer:
    """Makes a draft a version, as another person than its drafter."""
    reason = None if body is None else body.reason
    tariffs.approve(conn, draft, who=name_of(caller), now_ms=around.now_ms(), reason=reason)
    return _draft_answer(worklists.draft(conn, draft))


@router.post("/tariff-drafts/{draft}/withdrawal")
def withdraw_draft(
    conn: Database,
    around: Around,
    caller: Pricing,
    draft: DraftId,
    body: ReasonRequest | None = None,
) -> DraftAnswer:
    """Takes a draft back, also by its drafter."""
    reason = None if body is None else body.reason
    tariffs.withdraw(conn, draft, who=name_of(caller), now_ms=around.now_ms(), reason=reason)
    return _draft_answer(worklists.draft(conn, draft))


@router.post("/tariffs/{tariff}/simulations")
def simulate_version(
    conn: Database, around: Around, caller: Simulating, tariff: TariffCode, body: SimulationRequest
) -> SimulationAnswer:
    """What a version would have cost on real consumption of the past; changes nothing."""
    try:
        simulation = impact.prepare(
            conn, tariff, body.version, body.from_, body.to, around.now_ms()
        )
    except CreditError as error:
        raise RequestRefused(error.code, str(error), "/version") from None
    if simulation.accounts > SIMULATED_ACCOUNTS:
        raise RequestRefused(
            "too_many_accounts",
            f"{simulation.accounts} accounts take longer than a request may: "
            "use `prepaid tariff impact` at the server.",
            "",
        )
    total = _Total()
    seen: list[Impact] = []
    for one in impact.simulate(conn, simulation):
        total.add(one)
        seen.append(one)
    return _simulation_answer(tariff, simulation, total, seen)


def _dated(version: dict[str, object]) -> dict[str, object]:
    if not isinstance(version.get("valid_from"), str):
        raise RequestRefused(
            "invalid_request", "Say from which local date it holds.", "/version/valid_from"
        )
    return version


def _tariff_answer(found: TariffReport, now_ms: int) -> TariffAnswer:
    return TariffAnswer(
        code=found.code,
        name=found.name,
        currency=found.currency,
        timezone=found.timezone,
        accounts=found.accounts,
        versions=[dict(each) for each in found.versions],
        as_of=format_instant(now_ms),
    )


def _draft_answer(found: Draft) -> DraftAnswer:
    return DraftAnswer(
        id=found.id,
        tariff=found.tariff,
        version=dict(found.version),
        note=found.note,
        state=found.state,
        drafted_by=found.drafted_by,
        drafted_at=format_instant(found.drafted_ms),
        decided_by=found.decided_by,
        decided_at=answers.instant(found.decided_ms),
    )


def _simulation_answer(
    tariff: str, simulation: Simulation, total: _Total, seen: list[Impact]
) -> SimulationAnswer:
    most = sorted(seen, key=lambda one: abs(one.difference_micro), reverse=True)[:NAMED_ACCOUNTS]
    return SimulationAnswer(
        tariff=tariff,
        accounts=len(seen),
        dearer_for=total.dearer,
        energy_wh=total.energy_wh,
        old=answers.money(total.old_micro, simulation.currency),
        new=answers.money(total.new_micro, simulation.currency),
        difference=answers.money(total.new_micro - total.old_micro, simulation.currency),
        moved_most=[
            ImpactAnswer(
                account=one.account,
                energy_wh=one.energy_wh,
                old=format_micro(one.old_micro),
                new=format_micro(one.new_micro),
                difference=format_micro(one.difference_micro),
            )
            for one in most
        ],
    )
