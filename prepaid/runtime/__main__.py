"""`python -m prepaid.runtime run`: database and broker until Ctrl-C or SIGTERM."""

import argparse
import signal
import sys
import time

from prepaid.runtime.errors import RuntimeUnavailableError
from prepaid.runtime.folders import Account
from prepaid.runtime.instance import BROKER_VARIABLE, DATABASE_VARIABLE, Instance
from prepaid.runtime.resolver import resolve

WATCH_S = 0.5
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Exit status: 0 ended on request, 1 a server ended by itself, 2 cannot start (one line)."""
    parser = argparse.ArgumentParser(prog="python -m prepaid.runtime", description=__doc__)
    parser.add_argument("action", choices=["run", "fetch"])
    parser.add_argument("--user", help="account of the servers if you are root (nobody)")
    arguments = parser.parse_args()
    began = time.monotonic()

    def progress(text: str) -> None:
        sys.stderr.write(f"{time.monotonic() - began:6.1f} s  {text}\n")

    def interrupt(_number: int, _frame: object) -> None:
        # Once: the orderly end has a time limit of its own and is not to be cut short.
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in SIGNALS:
        signal.signal(number, interrupt)
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
            while True:
                time.sleep(WATCH_S)
                gone = instance.failed()
                if gone is not None:
                    progress(f"{gone}: ended by itself; ending the rest")
                    return 1
    except KeyboardInterrupt:
        progress("Ended")
        return 0
    except RuntimeUnavailableError as error:
        sys.stderr.write(f"prepaid: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
