"""Every measurement by its name, in the order of `prepaid bench all`."""

from collections.abc import Callable, Mapping

from benchmarks import (
    bench_api,
    bench_backlog,
    bench_end_to_end,
    bench_history,
    bench_ingest,
    bench_receiver,
    bench_storage,
    bench_tokens,
    bench_transaction,
    bench_validation,
)
from benchmarks.report import Asked, Report, Servers

Bench = Callable[[Servers, Asked], Report]

BENCHES: Mapping[str, Bench] = {
    "receiver": bench_receiver.run,
    "validation": bench_validation.run,
    "ingest": bench_ingest.run,
    "transaction": bench_transaction.run,
    "end-to-end": bench_end_to_end.run,
    "backlog": bench_backlog.run,
    "api": bench_api.run,
    "tokens": bench_tokens.run,
    "history": bench_history.run,
    "storage": bench_storage.run,
}
