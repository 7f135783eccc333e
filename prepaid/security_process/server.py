"""A security module served on a Unix domain socket, to processes of the users it knows."""

import fcntl
import os
import socket
import socketserver
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from pydantic import ValidationError

from prepaid.security_process import frames
from prepaid.security_process.frames import Answer, Read, Refused, Request
from schemas.errors import DomainError
from tokens.errors import LimitReached
from tokens.security_module import SecurityModule

SOCKET_MODE = 0o600
# Between the first octets of a request and its last.
REQUEST_S = 5.0

log = structlog.get_logger()


class SecurityModuleServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Serves `module`; each connection in a thread of its own. `users` are user ids that may ask.

    The socket is for its owner alone (0600), and the kernel's word on each peer is checked again,
    because root could pass the first of the two.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, path: Path, module: SecurityModule, users: frozenset[int]) -> None:
        """Errors: DomainError `socket_refused`."""
        self.module = module
        self.users = users
        # Nobody may connect between the birth of the socket and its mode.
        before = os.umask(0o777 & ~SOCKET_MODE)
        try:
            super().__init__(str(path), _Conversation)
        except OSError as error:
            raise DomainError(
                "socket_refused",
                f"{path}: {error.strerror}; name a place in a folder of your own, of less than "
                "100 characters",
            ) from None
        finally:
            os.umask(before)


class _Conversation(socketserver.BaseRequestHandler):
    """One peer: requests and answers until it ends."""

    request: socket.socket

    @property
    def _served(self) -> SecurityModuleServer:
        assert isinstance(self.server, SecurityModuleServer), "made by it alone"
        return self.server

    def handle(self) -> None:
        process, user = frames.peer_of(self.request)
        known = user in self._served.users
        if not known:
            log.warning("peer_refused", process=process, user=user)
        try:
            while True:
                self.request.settimeout(None)
                body = frames.receive(self.request)
                if body is None:
                    return
                self.request.settimeout(REQUEST_S)
                frames.send(self.request, self._answer(body, process) if known else NOT_KNOWN)
        except ValueError:
            log.warning("request_too_long", process=process)
        except OSError:
            return

    def _answer(self, body: bytes, process: int) -> Answer:
        try:
            request = frames.REQUEST.validate_json(body)
            answer = perform(self._served.module, request)
        except ValidationError:
            log.warning("request_unreadable", process=process)
            return NOT_READ
        except DomainError as error:
            log.info("refused", process=process, code=error.code)
            again_s = error.retry_after_s if isinstance(error, LimitReached) else None
            refused = Refused(code=error.code, message=str(error), retry_after_s=again_s)
            return Answer(refused=refused)
        except Exception as error:
            # The process goes on for the others.
            # By its kind alone: its text could quote what it was asked with.
            log.warning("failed", process=process, kind=type(error).__name__)
            return FAILED
        if not isinstance(request, frames.Verify | frames.CheckValue):
            log.info("issued", process=process, op=request.op, meter=request.meter_pan)
        return answer


NOT_KNOWN = Answer(
    refused=Refused(
        code="peer_refused",
        message="The security module does not serve this user: run as the one that it was started "
        "for.",
    )
)
NOT_READ = Answer(
    refused=Refused(
        code="request_invalid",
        message="The security module cannot read this request: both sides must be of one version.",
    )
)
FAILED = Answer(
    refused=Refused(
        code="security_module_away",
        message="The security module failed at this request: see its log, then send it again.",
    )
)


def perform(module: SecurityModule, request: Request) -> Answer:
    """One operation. Errors: those of the module."""
    match request:
        case frames.IssueCredit() as r:
            digits = module.issue_credit(
                r.meter_pan,
                r.attributes,
                subclass=r.subclass,
                amount=r.amount,
                tid_minutes=r.tid_minutes,
                rnd=r.rnd,
            )
            return Answer(digits=[digits])
        case frames.IssueManagement() as r:
            digits = module.issue_management(
                r.meter_pan,
                r.attributes,
                subclass=r.subclass,
                fields=r.fields,
                tid_minutes=r.tid_minutes,
                rnd=r.rnd,
            )
            return Answer(digits=[digits])
        case frames.IssueKeyChange() as r:
            made = module.issue_key_change(
                r.meter_pan, r.old, r.new, tid_minutes=r.tid_minutes, triplet=r.triplet
            )
            return Answer(digits=list(made))
        case frames.Verify() as r:
            return Answer(read=Read.of(module.verify(r.meter_pan, r.attributes, r.digits)))
        case frames.CheckValue() as r:
            return Answer(check_value=module.key_check_value(r.sgc, r.krn))


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """One process for one socket: hold the lock beside it, and take away what a dead one left.

    Errors: DomainError `socket_refused`.
    """
    try:
        lock = Path(f"{path}.lock").open("w", encoding="ascii")  # noqa: SIM115 - entered below
    except OSError as error:
        raise DomainError("socket_refused", f"{path}: {error.strerror}; name another") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DomainError(
                "socket_refused", f"{path} is served already: end that process first"
            ) from None
        if path.exists() and not stat.S_ISSOCK(path.lstat().st_mode):
            raise DomainError("socket_refused", f"{path} is no socket: name another place")
        path.unlink(missing_ok=True)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
