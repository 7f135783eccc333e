"""What is told of a run: a line per round, a table by kind, the same for programs, and a page."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prepaid.faults.kinds import Kind
from prepaid.faults.rounds import BREACHES_TOLD, Round, worst

INTRODUCTION = """\
Written by `prepaid faults --rounds {rounds} --seed {seed} --out docs/faults.md`.

The whole system runs on a private runtime: PostgreSQL with TimescaleDB, mosquitto, two gateway
workers (each with its dispatcher and clockwork) and the API. {meters} meters publish a reading a
second each, with repeats, late and swapped readings, dropped links and reboots, and keep what they
measured until a receipt covers it; they obey commands and tokens. A bank sells credit through the
API and asks again until it knows. Each round one fault strikes at a moment of chance."""

COLUMNS = (
    "fault",
    "what happens",
    "rounds",
    "losses",
    "doubles",
    "other",
    "restarts",
    "first commit p50 / p99, s",
    "drained p50 / p99, s",
)

READING = """\
## How to read it

*Losses* and *doubles* count what still broke a law {deadline:.0f} s after the fault was lifted: a
reading, payment or token that is gone, or that counts twice; *other* is whatever else is not as it
must be. The laws, each round: every reading up to a few seconds ago is held once with the value
that the meter measured; nothing was refused (but for readings that a wrong clock dated, in the
rounds of clocks); of each account the energy billed is the energy used, and entries and balance are
what `simulators.auditor` counts, which shares nothing with the engine; every acknowledged payment
is there once, every payment is answered, and a repeat is given the same answer; every token was
accepted by its meter once; no command was done twice, and its end is known as the meter tells it;
the relay is known. Every {audit}th round and the last ask the laws of `prepaid audit` on top, and
compare all readings since the beginning; its law that counters grow with the time of issue is left
out once the system's clock was stepped.

*First commit* is from the lifting of the fault to the next commit that moves money, *drained* to
the moment at which everything measured up to then is committed; *never*: by the end of the round
it was not all, as where a wrong clock of the system's refused readings as future ones. Both
include the back-off of whoever was cut off. A round ends when all laws hold. *Restarts* are
processes that ended by themselves and were started again by the supervisor.

A meter of this run keeps no archive: what a receipt frees is gone. So the rounds `broker-kill`,
`broker-amnesia` and `broker-full`, in which the broker forgets what it had acknowledged, show that
the buffer and the receipt carry what the broker does not.

## How to repeat

    prepaid faults --rounds {rounds} --seed {seed}    # all of it
    prepaid faults --seed {seed} --round 57       # one round alone: same fault and moment
    prepaid faults --rounds 20 --only broker    # one group of kinds

A round that broke a law says which, with the last lines of every process's log. The moments are
those of the seed; what the machine does meanwhile is its own. Recovery includes the start of a
killed program, and is that of the machine of this run."""


@dataclass(frozen=True, slots=True)
class Played:
    """A run: what was asked for, and what came of it. `skipped`: kind -> why it was left out."""

    kinds: Sequence[Kind]
    rounds: Sequence[Round]
    seed: int
    meters: int
    audit_every: int
    deadline_s: float
    skipped: Mapping[str, str]

    @property
    def passed(self) -> bool:
        return all(each.passed for each in self.rounds)

    def of(self, kind: Kind) -> list[Round]:
        return [each for each in self.rounds if each.kind == kind.name]


def line(each: Round) -> str:
    """One round for people, and below it what broke."""
    verdict = "ok    " if each.passed else "FAILED"
    times = f"first {_s(each.first_s)}, drained {_s(each.drained_s)}, lawful {_s(each.lawful_s)}"
    extra = f", {each.died} restarts" if each.died else ""
    audited = ", audited" if each.audited else ""
    head = f"{verdict} {each.number:>4} {each.kind:<18} {times}{extra}{audited}  [{each.did}]"
    told = [f"         {breach.law} ({breach.harm}): {breach.told}" for breach in each.breaches]
    if len(told) > BREACHES_TOLD:
        told = [*told[:BREACHES_TOLD], f"         and {len(told) - BREACHES_TOLD} more"]
    for name, words in each.last_words.items():
        told += [f"         {name} said last:"]
        told += [f"           {word}" for word in words.splitlines()]
    return "\n".join([head, *told])


def repeat(played: Played, each: Round) -> str:
    """How to have a round again."""
    return f"prepaid faults --seed {played.seed} --meters {played.meters} --round {each.number}"


def table(played: Played) -> Iterator[str]:
    """By kind, in Markdown."""
    yield f"| {' | '.join(COLUMNS)} |"
    yield f"|{'---|' * len(COLUMNS)}"
    for kind in played.kinds:
        rounds = played.of(kind)
        if kind.name in played.skipped:
            yield f"| {kind.name} | {kind.happens} | skipped: {played.skipped[kind.name]} |||||||"
        elif rounds:
            yield f"| {kind.name} | {kind.happens} | {_cells(rounds)} |"
    yield f"| **all** | | {_cells(played.rounds)} |"


def _cells(rounds: Sequence[Round]) -> str:
    harms = [breach.harm for each in rounds for breach in each.breaches]
    cells = [
        str(len(rounds)),
        *(str(harms.count(harm)) for harm in ("loss", "double", "wrong")),
        str(sum(each.died for each in rounds)),
    ]
    for name in ("first_s", "drained_s"):
        values = [getattr(each, name) for each in rounds]
        cells.append(f"{_s(worst(values, 50), '')} / {_s(worst(values, 99), '')}")
    return " | ".join(cells)


def form(played: Played) -> dict[str, object]:
    """For programs."""
    return {
        "seed": played.seed,
        "meters": played.meters,
        "skipped": dict(played.skipped),
        "rounds": [
            {
                "round": each.number,
                "kind": each.kind,
                "did": each.did,
                "passed": each.passed,
                "first_s": each.first_s,
                "drained_s": each.drained_s,
                "lawful_s": each.lawful_s,
                "readings": each.readings,
                "payments": each.payments,
                "restarts": each.died,
                "audited": each.audited,
                "breaches": [breach._asdict() for breach in each.breaches],
                "last_words": each.last_words,
                **({} if each.passed else {"repeat": repeat(played, each)}),
            }
            for each in played.rounds
        ],
        "passed": sum(each.passed for each in played.rounds),
        "failed": sum(not each.passed for each in played.rounds),
    }


def write_page(played: Played, path: Path) -> None:
    """The run as a page of the documentation."""
    path.write_text("\n".join(_page(played)) + "\n", encoding="utf-8")


def _page(played: Played) -> Iterator[str]:
    of = {
        "rounds": len(played.rounds),
        "seed": played.seed,
        "meters": played.meters,
        "audit": played.audit_every,
        "deadline": played.deadline_s,
    }
    readings = sum(each.readings for each in played.rounds)
    payments = sum(each.payments for each in played.rounds)
    failed = sum(not each.passed for each in played.rounds)
    yield "# Faults by the hundred"
    yield ""
    yield INTRODUCTION.format_map(of)
    yield ""
    yield (
        f"{len(played.rounds)} rounds, {failed} of them failed; {readings} readings measured and "
        f"{payments} payments asked for."
    )
    yield ""
    yield from table(played)
    yield ""
    for each in played.rounds:
        if not each.passed:
            first = each.breaches[0]
            yield f"Round {each.number} ({each.kind}, {each.did}): {first.law}, {first.told}. "
            yield f"Again: `{repeat(played, each)}`."
            yield ""
    yield READING.format_map(of)


def _s(value: float | None, unit: str = " s") -> str:
    return "never" if value is None else f"{value:.1f}{unit}"
