"""`python -m prepaid.runtime run`: database and broker until Ctrl-C or SIGTERM."""

import argparse
import signal
import sys
import threading
import time

from prepaid.runtime.errors import RuntimeUnavailableError
from prepaid.runtime.folders import Account
from prepaid.runtime.instance import BROKER_VARIABLE, DATABASE_VARIABLE, Instance
from prepaid.runtime.resolver import resolve

WATCH_S = 0.5


def main() -> int:
    """Exit status: 0 ended on request, 1 a server ended by itself, 2 cannot start (one line)."""
    parser = argparse.ArgumentParser(prog="python -m prepaid.runtime", description=__doc__)
    parser.add_argument("action", choices=["run", "fetch"])
    parser.add_argument("--user", help="account of the servers if you are root (nobody)")
    arguments = parser.parse_args()
    began = time.monotonic()

    def progress(text: str) -> None:
        sys.stderr.write(f"{time.monotonic() - began:6.1f} s  {text}\n")

    # Before anything is started: a signal in the middle of the start must end it in order too.
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())
    try:
        if arguments.action == "fetch":
            resolve(progress)
            return 0
        account = Account.choose(arguments.user)
        with Instance(progress, account=account) as instance:
            sys.stdout.write(f"{DATABASE_VARIABLE}={instance.database_url}\n")
            sys.stdout.write(f"{BROKER_VARIABLE}={instance.broker_url}\n")
            sys.stdout.flush()
            progress("Ready; Ctrl-C ends it")
            while not ended.wait(WATCH_S):
                gone = instance.failed()
                if gone is not None:
                    progress(f"{gone}: ended by itself; ending the rest")
                    return 1
            progress("Ending")
    except RuntimeUnavailableError as error:
        sys.stderr.write(f"prepaid: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
