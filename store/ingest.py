"""One batch of messages, one transaction: store, rate, debit, decide, queue.

Nothing is acknowledged before `record` has committed, and everything that a message causes is in
that commit: readings and their verdicts, ledger rows, quarantine, commands. Repeats change nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import orjson
from psycopg import Connection

from credit_engine.facts import Reading
from schemas.identity import ACTIVE_IMPORT
from schemas.quantities import format_instant
from schemas.telemetry import DecodedReading
from schemas.topics import Topic
from store import batch_meter, decisions, gaps, steady, supply
from store.answers import BatchAnswer, batch_answer, receipts
from store.batch_meter import BatchMeter, Told
from store.binary import Bools, Int8s, Texts
from store.devices import keep_counters
from store.incoming import Incoming, Recorded
from store.lanes import Lanes
from store.quarantine import Quarantine, Refusal
from store.reports import Reports, speaks_of_itself
from store.settlement import AccountState, News, Settled, lock_accounts, settle_accounts
from store.sql import query
from store.terms import TermsCache

BEFORE_INSTALLATION = "before_installation"
NOT_INSTALLED = "not_installed"
# A reading whose clock is lost is stored, and not billed until somebody resolves it.
CLOCK_LOST = "clock_lost"
# The total of a device that can be set back is stored and shown, and bills nobody (ADR 0014).
UNTRUSTED = "untrusted"


class _Overtaken(Exception):  # noqa: N818 - no error: the batch begins anew
    """A meter was installed between the locks of the accounts and its own."""


class _Row(NamedTuple):
    """A reading that will be stored, and the message that brought it."""

    meter: BatchMeter
    reading: DecodedReading
    message: Incoming
    account: int | None
    verdict: str | None


class Batch:
    """The work on one batch; made for one transaction and thrown away."""

    def __init__(self, conn: Connection, terms: TermsCache, now_ms: int) -> None:
        self._conn = conn
        self._terms = terms
        self._now_ms = now_ms
        self._meters: dict[str, BatchMeter] = {}
        self._states: dict[int, AccountState] = {}
        self._quarantine = Quarantine()
        self._reports = Reports(now_ms)
        # By message: what its gateway will be told.
        self._answers: dict[int, BatchAnswer] = {}
        self.recorded = Recorded()

    def record(self, messages: Sequence[Incoming]) -> Recorded:
        """Everything that these messages cause, up to the commit that the caller does."""
        self._lock(messages)
        candidates: list[tuple[BatchMeter, DecodedReading, Incoming]] = []
        for message in messages:
            self._take(message, candidates)
        rows = self._new_rows(candidates)
        self._settle_and_write(rows)
        for message in messages:
            self._take_ack(message)
        self._quarantine.write(self._conn, self._now_ms)
        gaps.note(self._conn, self._meters.values(), self._now_ms)
        self.recorded.receipts = gaps.promised(self._conn, self._meters, self.recorded.receipts)
        self._reports.write(self._conn)
        self.recorded.reconnections_ms = batch_meter.write(
            self._conn, self._meters.values(), self._now_ms
        )
        keep_counters(self._conn, [each.frame for each in messages if each.frame is not None])
        return self.recorded

    def set_aside(self, message: Incoming, detail: str) -> Recorded:
        """Only the quarantine row of one message."""
        self._refuse(message, "internal", detail[:500].replace("\0", "?"), None, None)
        self._quarantine.write(self._conn, self._now_ms)
        return self.recorded

    # --- who is concerned -------------------------------------------------------------------

    def _lock(self, messages: Sequence[Incoming]) -> None:
        speaking = sorted({m.topic.device for m in messages if m.topic and m.topic.side == "g"})
        if speaking:
            self._reports.know_gateways(self._conn, speaking)
        concerned_numbers = {number for message in messages for number in message.meters()}
        if not concerned_numbers:
            return
        numbers = {"numbers": Texts(sorted(concerned_numbers))}
        accounts = [
            account for (account,) in self._conn.execute(query("accounts_of_meters"), numbers)
        ]
        if accounts:
            self._states = lock_accounts(self._conn, accounts, self._terms.positions)
        self._meters = batch_meter.load(self._conn, numbers["numbers"])
        # Accounts come before meters, for everybody: one that was given a meter of ours while we
        # waited is not locked now, or two of us could wait in a circle.
        concerned = {account for meter in self._meters.values() for account in meter.accounts}
        if not concerned <= self._states.keys():
            raise _Overtaken

    # --- message by message -----------------------------------------------------------------

    def _take(
        self,
        message: Incoming,
        candidates: list[tuple[BatchMeter, DecodedReading, Incoming]],
    ) -> None:
        decoded, topic = message.decoded, message.topic
        answer = batch_answer(topic, decoded, message.kept)
        if answer is not None:
            self._answers[id(message)] = answer
            self.recorded.answers.append(answer)
        for refused in decoded.refused:
            self._refuse(message, refused.reason, refused.detail, refused.row_index, refused.raw)
        if topic is None:
            if not decoded.refused:
                detail = "No topic of the contract's clause 1."
                self._refuse(message, "bad_topic", detail, None, None)
            return
        if decoded.readings:
            self._take_readings(message, topic, candidates)
        if topic.side == "m":
            speaker = self._meters.get(topic.device)
            if speaker is not None and decoded.online is None and message.said_now():
                speaker.presence.spoke()
            self.recorded.receipts += receipts(topic.device, decoded)
            self._take_report(topic.device, message)
        else:
            self._take_gateway_report(topic.device, message)

    def _take_readings(
        self,
        message: Incoming,
        topic: Topic,
        candidates: list[tuple[BatchMeter, DecodedReading, Incoming]],
    ) -> None:
        of_gateway = topic.device if topic.side == "g" else None
        answer = self._answers.get(id(message))
        unknown: set[str] = set()
        meters = self._meters
        for reading in message.decoded.readings:
            if answer is not None:
                answer.keep(reading.meter, reading.boot, reading.seq)
            meter = meters.get(reading.meter)
            if meter is None:
                unknown.add(reading.meter)
            elif of_gateway is not None and meter.gateway != of_gateway:
                self._refuse_reading(
                    message, reading, "not_assigned", "Not a meter of this gateway."
                )
            else:
                candidates.append((meter, reading, message))
        for number in sorted(unknown):
            self._refuse_meter(message, "unknown_meter", number)
        first = message.decoded.readings[0]
        if of_gateway is None and message.received_ms is not None and first.meter in meters:
            self._reports.reading(meters[first.meter], first, message.received_ms)

    def _take_report(self, number: str, message: Incoming) -> None:
        if not speaks_of_itself(message.decoded):
            return
        meter = self._meters.get(number)
        if meter is None:
            self._refuse_meter(message, "unknown_meter", number)
        else:
            self._reports.take(meter, message.decoded, message.payload, message.received_ms)

    def _take_gateway_report(self, gateway: str, message: Incoming) -> None:
        decoded = message.decoded
        event, prompt = decoded.event, message.said_now()
        if not self._reports.gateway_spoke(gateway, decoded.online, prompt=prompt):
            detail = f"Gateway {gateway} is not registered."
            self._refuse(message, "unknown_gateway", detail, None, None, gateway)
        elif decoded.hello is not None:
            self._reports.gateway_spoke(gateway, online=True, prompt=prompt)
            self._reports.gateway_event(gateway, "hello", message.payload)
        elif event is not None and event.meter is None:
            self._reports.gateway_event(gateway, event.type, message.payload)
        elif event is not None and event.meter is not None:
            meter = self._behind(message, event.meter)
            if meter is not None:
                self._reports.event(meter, event, message.payload, message.received_ms)

    def _behind(self, message: Incoming, number: str) -> BatchMeter | None:
        """The meter that is spoken for, unless it is unknown or another gateway's."""
        meter, topic = self._meters.get(number), message.topic
        if meter is None:
            self._refuse_meter(message, "unknown_meter", number)
        elif topic is not None and topic.side == "g" and meter.gateway != topic.device:
            self._refuse_meter(message, "not_assigned", number)
            return None
        return meter

    def _take_ack(self, message: Incoming) -> None:
        ack = message.decoded.ack
        if ack is None:
            return
        if ack.meter is None:
            self._refuse(message, "unknown_meter", "Name the meter that answers.", None, None)
            return
        meter = self._behind(message, ack.meter)
        if meter is None:
            return
        if ack.relay is not None:
            meter.report(ack.relay, Told(ack.ts_ms, message.received_ms, self._now_ms))
        meter.heard = True
        if not supply.answer(self._conn, ack, meter.number, self._now_ms):
            self._refuse(message, "unknown_command", f"No command {ack.cmd} was given.", None, None)

    # --- readings ---------------------------------------------------------------------------

    def _new_rows(
        self, candidates: Iterable[tuple[BatchMeter, DecodedReading, Incoming]]
    ) -> list[_Row]:
        """Readings that are not stored yet, with the verdicts that need no engine."""
        placed = [
            (meter, reading, message, meter.account_at(reading.ts_ms))
            for meter, reading, message in candidates
        ]
        known = self._known(
            (meter, reading)
            for meter, reading, _, account in placed
            # How new another register is, no account tells: it may have come without the total.
            if account is None
            or reading.ts_ms <= self._states[account].newest_reading_ms
            or reading.register != ACTIVE_IMPORT
        )
        counted = batch_meter.counted(
            self._conn,
            (
                (meter, reading)
                for meter, reading, *_ in placed
                if (meter.id, reading.register, reading.ts_ms) not in known
            ),
        )
        rows: list[_Row] = []
        for meter, reading, message, account in placed:
            key = (meter.id, reading.register, reading.ts_ms)
            stored = known.get(key)
            if stored is not None:
                if stored == reading.value_wh:
                    meter.hear(reading, message.received_ms, self._now_ms)
                    self.recorded.duplicate += 1
                else:
                    meter.hear_refused(reading)
                    detail = f"{reading.register} was {stored} Wh at that instant."
                    self._refuse_reading(message, reading, "conflict", detail)
                continue
            boot, seq, ts_ms = reading.boot, reading.seq, reading.ts_ms
            count = (meter.id, boot, seq)
            suspicion = meter.ran_back(boot, seq, ts_ms, replayed=reading.hist)
            if suspicion is None and counted.get(count, ts_ms) != ts_ms:
                suspicion = "seq_reused"
            if suspicion is not None:
                detail = f"boot {meter.boot} had reached seq {meter.seq} before that instant."
                if count in counted:
                    detail = f"that count was of {format_instant(counted[count])}."
                self._refuse_reading(message, reading, suspicion, detail)
                self._reports.suspect(meter, suspicion, f"Said boot {boot}, seq {seq}; {detail}")
                continue
            if meter.clock == "lost" and reading.tq != "lost" and boot >= (meter.boot or 0):
                reading = reading._replace(tq="lost")  # noqa: PLW2901 - by its clock, as we know it
            known[key] = reading.value_wh
            counted[count] = ts_ms
            meter.hear(reading, message.received_ms, self._now_ms)
            rows.append(
                _Row(meter, reading, message, account, self._early_verdict(meter, reading, account))
            )
        return rows

    def _early_verdict(
        self, meter: BatchMeter, reading: DecodedReading, account: int | None
    ) -> str | None:
        if reading.register != ACTIVE_IMPORT:
            return None
        if not meter.trusted:
            return UNTRUSTED
        if account is None:
            return NOT_INSTALLED
        if reading.ts_ms <= self._states[account].opened_ms:
            return BEFORE_INSTALLATION
        return CLOCK_LOST if reading.tq == "lost" else None

    def _known(
        self, wanted: Iterable[tuple[BatchMeter, DecodedReading]]
    ) -> dict[tuple[int, str, int], int]:
        keys = [(meter.id, reading.register, reading.ts_ms) for meter, reading in wanted]
        if not keys:
            return {}
        found = self._conn.execute(
            query("known_readings"),
            {
                "meters": Int8s([meter for meter, _, _ in keys]),
                "registers": Texts([register for _, register, _ in keys]),
                "ts": Int8s([ts_ms for _, _, ts_ms in keys]),
                "first_ms": min(ts_ms for _, _, ts_ms in keys),
                "last_ms": max(ts_ms for _, _, ts_ms in keys),
            },
            prepare=False,  # planned for this range, see store.facts.stored_facts
        )
        return {(meter, register, ts_ms): value for meter, register, ts_ms, value in found}

    def _settle_and_write(self, rows: Sequence[_Row]) -> None:
        facts: dict[int, list[Reading]] = {}
        live: set[int] = set()
        after_gaps: set[int] = set()
        newest_unrated: dict[int, int] = {}
        for row in rows:
            reading = row.reading
            if row.account is None or reading.register != ACTIVE_IMPORT:
                continue
            if row.verdict is None:
                fact = Reading(reading.ts_ms, reading.value_wh, reading.meter)
                facts.setdefault(row.account, []).append(fact)
                if not reading.hist:
                    live.add(row.account)
                if row.meter.jumps:
                    after_gaps.add(row.account)
            elif row.verdict in {CLOCK_LOST, UNTRUSTED}:
                newest = max(reading.ts_ms, newest_unrated.get(row.account, 0))
                newest_unrated[row.account] = newest
        news = [
            News(self._states[account], new, gap=account in after_gaps)
            for account, new in sorted(facts.items())
        ]
        settled = settle_accounts(self._conn, self._terms, news, self._now_ms)
        self._insert(rows, {p: word for each in settled for p, word in each.verdicts.items()})
        # A replayed reading is billed; never by itself the cause of a cut (mqtt.md section 2).
        self.recorded.commands += decisions.record(
            self._conn,
            settled,
            self._now_ms,
            live=live,
            asked=self._asked(settled),
            positions=self._terms.positions,
        )
        if newest_unrated:
            self._conn.execute(
                query("remember_newest"),
                {"accounts": list(newest_unrated), "newest": list(newest_unrated.values())},
            )

    def _asked(self, settled: Sequence[Settled]) -> dict[int, str]:
        """What the meters that still serve their accounts were last asked for."""
        asked: dict[int, str] = {}
        for each in settled:
            meter = self._meters.get(each.state.position.installation.meter_id)
            # With a tail, an exchange may have come after the position.
            serves = meter is not None and meter.accounts[-1:] == [each.state.account_id]
            if meter is not None and serves and not each.state.has_tail:
                asked[each.state.account_id] = meter.desired_relay
        return asked

    def _insert(self, rows: Sequence[_Row], verdicts: Mapping[tuple[str, int], str]) -> None:
        if not rows:
            return
        judged = [
            row.verdict
            or (
                verdicts.get((row.meter.number, row.reading.ts_ms))
                if row.reading.register == ACTIVE_IMPORT
                else None
            )
            for row in rows
        ]
        for row, verdict in zip(rows, judged, strict=True):
            if verdict in {None, "accepted", UNTRUSTED}:
                self.recorded.accepted += (
                    row.reading.register == ACTIVE_IMPORT and verdict != UNTRUSTED
                )
            else:
                self.recorded.quarantined += 1
        self._conn.execute(
            query("insert_readings"),
            {
                "now_ms": self._now_ms,
                "meter_id": Int8s([row.meter.id for row in rows]),
                "register": Texts([row.reading.register for row in rows]),
                "ts": Int8s([row.reading.ts_ms for row in rows]),
                "value_wh": Int8s([row.reading.value_wh for row in rows]),
                "boot": Int8s([row.reading.boot for row in rows]),
                "seq": Int8s([row.reading.seq for row in rows]),
                "clock": Texts([row.reading.tq for row in rows]),
                "historical": Bools([row.reading.hist for row in rows]),
                "verdict": Texts(judged),
                "detail": Texts(
                    [
                        None if row.reading.rest is None else row.reading.rest.decode()
                        for row in rows
                    ]
                ),
            },
        )

    # --- what is kept beside ----------------------------------------------------------------

    def _refuse_reading(
        self, message: Incoming, reading: DecodedReading, reason: str, detail: str
    ) -> None:
        raw = message.payload
        answer = self._answers.get(id(message))
        if answer is not None:
            answer.refuse_reading(reading, reason)
        if message.topic is not None and message.topic.side == "g":
            raw = orjson.dumps(
                [
                    reading.meter,
                    reading.boot,
                    reading.seq,
                    reading.ts_ms,
                    reading.register,
                    reading.value_wh,
                ]
            )
        place = f"{reading.meter} {reading.register} {reading.ts_ms} {reading.value_wh}"
        self._refuse(message, reason, detail, None, raw, place)

    def _refuse_meter(self, message: Incoming, reason: str, number: str) -> None:
        """A message, or what of it is said for one meter."""
        detail = {
            "unknown_meter": f"Meter {number} is not registered.",
            "not_assigned": f"Meter {number} is not behind this gateway.",
        }[reason]
        self._refuse(message, reason, detail, None, None, number)
        answer = self._answers.get(id(message))
        if answer is not None:
            answer.refuse_meter(number, reason)

    def _refuse(
        self,
        message: Incoming,
        reason: str,
        detail: str,
        row_index: int | None,
        raw: bytes | None,
        place: str = "",
    ) -> None:
        payload = message.payload if raw is None else raw
        refusal = Refusal(
            reason, detail, message.topic_text, row_index, payload, message.content_type, place
        )
        self.recorded.quarantined += self._quarantine.add(refusal)


def record(
    conn: Connection,
    terms: TermsCache,
    messages: Sequence[Incoming],
    now_ms: int,
    lanes: Lanes | None = None,
) -> Recorded:
    """Record a batch; when this returns it is committed: the steady readings, then all others.

    `lanes`: what a worker keeps between its batches. A batch that fails half-way is said again, and
    what is committed is then a repeat.
    """
    left, recorded = steady.take(conn, terms, lanes or Lanes(), messages, now_ms)
    if left:
        recorded.add(record_in_general(conn, terms, left, now_ms))
    return recorded


def record_in_general(
    conn: Connection, terms: TermsCache, messages: Sequence[Incoming], now_ms: int
) -> Recorded:
    """`record` without its short way, in one transaction; the same answer for every input."""
    while True:
        try:
            with conn.transaction():
                return Batch(conn, terms, now_ms).record(messages)
        except _Overtaken:
            continue


def set_aside(conn: Connection, message: Incoming, detail: str, now_ms: int) -> Recorded:
    """Keep a message that we failed to handle, with the failure, so that it is not lost."""
    batch = Batch(conn, TermsCache(), now_ms)
    with conn.transaction():
        return batch.set_aside(message, detail)
