"""What may be said to devices once a batch is committed: what they may forget, what was refused."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from schemas.telemetry import Decoded, DecodedReading, Refused
from schemas.topics import Topic
from schemas.wire import RefusedRow


class Receipt(NamedTuple):
    """To a meter: everything of `boot` up to `seq` is kept."""

    meter: str
    boot: int
    seq: int


@dataclass(slots=True)
class BatchAnswer:
    """To a gateway: up to which counter each meter's rows of one batch are kept, as
    {(meter, boot): seq}, and what of them was refused (and is kept in quarantine).
    """

    gateway: str
    batch_id: str | None
    kept: dict[tuple[str, int], int] = field(default_factory=dict)
    refused: list[RefusedRow] = field(default_factory=list)

    def keep(self, meter: str, boot: int, seq: int) -> None:
        """One more reading that the gateway may forget."""
        of = (meter, boot)
        if seq > self.kept.get(of, -1):
            self.kept[of] = seq

    def refuse_row(self, refused: Refused) -> None:
        """A row that could not be read, or the batch as a whole."""
        row: RefusedRow = {"reason": refused.reason}
        if refused.row_index is not None:
            row["row"] = refused.row_index
        if refused.meter is not None:
            row["meter"] = refused.meter
            if refused.boot is not None and refused.seq is not None:
                row["boot"], row["seq"] = refused.boot, refused.seq
                self.keep(refused.meter, refused.boot, refused.seq)
        self.refused.append(row)

    def refuse_reading(self, reading: DecodedReading, reason: str) -> None:
        """A reading that the store does not take."""
        meter, boot, seq = reading.meter, reading.boot, reading.seq
        self.refused.append({"reason": reason, "meter": meter, "boot": boot, "seq": seq})

    def refuse_meter(self, number: str, reason: str) -> None:
        """All that is said of one meter."""
        self.refused.append({"reason": reason, "meter": number})


def batch_answer(
    topic: Topic | None, decoded: Decoded, kept: Mapping[tuple[str, int], int] | None = None
) -> BatchAnswer | None:
    """The answer to a gateway's batch, begun with what is `kept` already and what decoding refused;
    None: no batch.
    """
    if topic is None or topic.kind != "batch":
        return None
    answer = BatchAnswer(topic.device, decoded.batch_id, dict(kept or {}))
    for refused in decoded.refused:
        answer.refuse_row(refused)
    return answer


def receipts(meter: str, decoded: Decoded) -> Iterator[Receipt]:
    """What a meter's message asks about, taken or refused: the highest counter of each boot.

    Of a refused row nobody knows any more whether it asked; it is confirmed all the same, since
    saying it again would change nothing.
    """
    asked = [(r.boot, r.seq) for r in decoded.readings if r.rcpt or r.hist]
    asked += [(r.boot, r.seq) for r in decoded.refused if r.boot is not None and r.seq is not None]
    highest: dict[int, int] = {}
    for boot, seq in asked:
        highest[boot] = max(seq, highest.get(boot, 0))
    for boot, seq in highest.items():
        yield Receipt(meter, boot, seq)
