"""Every measurement by its name."""

from collections.abc import Callable, Mapping

from benchmarks import bench_end_to_end, bench_transaction
from benchmarks.report import Asked, Report, Servers

Bench = Callable[[Servers, Asked], Report]

BENCHES: Mapping[str, Bench] = {
    "transaction": bench_transaction.run,
    "end-to-end": bench_end_to_end.run,
}
