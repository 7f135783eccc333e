"""`prepaid gateway` with a planted defect: it acknowledges and promises before the commit."""

import asyncio
from collections.abc import Sequence

from meter_gateway.ingest import IngestLoop
from meter_gateway.receiver import Delivery
from prepaid.cli import main
from store.answers import receipts
from store.incoming import Incoming
from store.terms import TermsCache

# A kill falls between the word and the deed.
BETWEEN_S = 1.5


async def hasty(
    self: IngestLoop,
    terms: TermsCache,
    deliveries: Sequence[Delivery],
    messages: Sequence[Incoming],
) -> None:
    self.receiver.acknowledge(deliveries)
    promised = [
        each
        for message in messages
        if message.topic is not None and message.topic.side == "m"
        for each in receipts(message.topic.device, message.decoded)
    ]
    self.downlink.receipts(promised, [])
    await asyncio.sleep(BETWEEN_S)
    await self._record(terms, messages)


if __name__ == "__main__":
    IngestLoop._commit = hasty  # type: ignore[method-assign] # the defect
    main()
