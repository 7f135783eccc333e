"""What every simulated channel is: a small HTTP server that can do a thing and lose the answer."""

import random
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, Self
from urllib.parse import parse_qsl, urlsplit

# What becomes of a payment: `late` ones are under way for so many checks first.
Deed = Literal["paid", "refused", "late_paid", "late_failed", "nothing"]
# What becomes of the answer: cut before a byte, cut in the middle, an error of a proxy, or none
# until the channel lets go.
Reply = Literal["whole", "cut", "half", "error", "hang"]
HANG_S = 60


@dataclass(frozen=True, slots=True)
class Plan:
    """What the channel does with one request. `nothing` and `cut`: it never arrived."""

    deed: Deed = "paid"
    reply: Reply = "whole"
    late_checks: int = 2


@dataclass
class Mischief:
    """Plans in the order of `next_plans`, then from the seed: of 100 so many are `odd`."""

    seed: int = 0
    odd: int = 0
    next_plans: deque[Plan] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)  # noqa: S311 - to be repeated, not to be secret
        self._lock = threading.Lock()

    def plan(self) -> Plan:
        """What to do with the next request that takes money."""
        with self._lock:
            if self.next_plans:
                return self.next_plans.popleft()
            if self._chance.randrange(100) >= self.odd:
                return Plan()
            deeds: list[Deed] = ["paid", "refused", "late_paid", "late_failed", "nothing"]
            deed = self._chance.choice(deeds)
            replies: list[Reply] = ["whole", "cut", "half", "error"]
            reply = "cut" if deed == "nothing" else self._chance.choice(replies)
            return Plan(deed, reply, self._chance.randrange(1, 4))

    def number(self, digits: int) -> str:
        """Digits of a transaction, a session or a passcode."""
        with self._lock:
            return "".join(str(self._chance.randrange(10)) for _ in range(digits))

    def shuffle(self, things: list[bytes]) -> None:
        with self._lock:
            self._chance.shuffle(things)


@dataclass(frozen=True, slots=True)
class Request:
    """One request as a channel sees it; names of headers in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def fields(self) -> dict[str, str]:
        """The fields of a form."""
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))


@dataclass(frozen=True, slots=True)
class Response:
    """An answer, and what becomes of it on its way."""

    body: bytes
    status: int = 200
    reply: Reply = "whole"


class SimulatedChannel(ABC):
    """A context in which the channel listens at `url` (port 0: any free one). A subclass answers;
    `lock` is held then.
    """

    def __init__(self, mischief: Mischief | None = None, *, port: int = 0) -> None:
        self.mischief = mischief or Mischief()
        self.lock = threading.Lock()
        self.let_go = threading.Event()
        channel = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._serve()

            def do_POST(self) -> None:
                self._serve()

            def _serve(self) -> None:
                length = int(self.headers.get("content-length", "0"))
                parts = urlsplit(self.path)
                request = Request(
                    self.command,
                    parts.path,
                    dict(parse_qsl(parts.query, keep_blank_values=True)),
                    {name.lower(): value for name, value in self.headers.items()},
                    self.rfile.read(length),
                )
                with channel.lock:
                    response = channel.answer(request)
                self._send(response)
                channel.afterwards(request, response)

            def _send(self, response: Response) -> None:
                # One request a connection: what is cut here is cut for this request alone.
                self.close_connection = True
                if response.reply == "hang":
                    channel.let_go.wait(HANG_S)
                if response.reply in {"cut", "hang"}:
                    return
                if response.reply == "error":
                    response = Response(b"<html>bad gateway</html>", 502)
                half = response.reply == "half"
                sent = response.body[: len(response.body) // 2] if half else response.body
                self.send_response(response.status)
                self.send_header("Content-Length", str(len(response.body)))
                self.end_headers()
                self.wfile.write(sent)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
                """A passcode stands in these requests: nothing is printed."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        host, port = self._server.server_address[:2]
        self.url = f"http://{host!s}:{port}"

    @abstractmethod
    def answer(self, request: Request) -> Response:
        """What to answer to one request."""

    def afterwards(self, request: Request, response: Response) -> None:  # noqa: B027 - most do nothing
        """What happens once it is answered."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
