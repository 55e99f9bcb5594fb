"""Load a service with mixed requests for twenty minutes, and see that nothing grows, hangs or fails.

``python benchmarks/load.py`` starts Familiar on the built-in model with four users, each with their own key and
adapter, and has twelve clients ask without pause: whole replies and streams, short and long, conversations of two
turns, clients that go away in the middle, requests that are wrong, several replies at once, and the read-only routes.
Which request comes next is seeded. ``--minutes`` sets the time; ``--quick`` is one minute.

At the end: no reply that was not expected, every slot usable at once, and memory, file descriptors and threads where
they were. Memory is judged on the second half of the run, as caches fill in the first. What is left out: speed.
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean

import psutil
from adapter_files import Household, make_household
from client import Address, Reply, ask, leave_early, stream_all
from common import ROOT, Report, arguments, progress
from processes import Running
from servers import Site, Sizes, start_familiar
from workload import chat, end_tokens, user, words

CLIENTS = 12
USERS = 4
SAMPLE_S = 1.0
MAX_MB_PER_MIN = 0.5
PATH = "/v1/chat/completions"


@dataclass(frozen=True)
class Sample:
    """The process at one moment."""

    minute: float
    rss_mb: float
    open_files: int
    threads: int


@dataclass
class Tally:
    """What became of the requests, by kind; safe from any thread."""

    done: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, problem: str | None) -> None:
        """Count a request, and keep what was wrong with it."""
        with self._lock:
            self.done[kind] += 1
            if problem is not None:
                self.unexpected.append(f"{kind}: {problem}")


@dataclass(frozen=True)
class Client:
    """One client: its own random numbers, the users' keys, and the tokens that do not end a reply."""

    address: Address
    keys: Sequence[str]
    never: Sequence[int]
    rng: random.Random

    def whole(self) -> str | None:
        """A reply in one piece, short or long."""
        return _wrong(self._ask(self._body(stream=False)))

    def stream(self) -> str | None:
        """A streamed reply, short or long."""
        return _wrong(stream_all([(self._as_someone(), self._body(stream=True))])[0])

    def conversation(self) -> str | None:
        """Two turns by the same user."""
        address, messages = self._as_someone(), [user(words(60, self.rng))]
        for _ in range(2):
            reply = ask(address, PATH, chat("familiar", messages, 24, stream=False))
            if (problem := _wrong(reply)) is not None:
                return problem
            messages += [{"role": "assistant", "content": reply.text}, user(words(6, self.rng))]
        return None

    def sampled(self) -> str | None:
        """A reply that is drawn rather than the likeliest, with penalties and a stop string."""
        drawn = {"temperature": 1.0, "frequency_penalty": 0.5, "stop": ["\n\n"], "seed": self.rng.randrange(1000)}
        return _wrong(self._ask(self._body(stream=False) | drawn))

    def several(self) -> str | None:
        """Three replies to one prompt."""
        return _wrong(self._ask(self._body(stream=False) | {"n": 3, "temperature": 0.8}))

    def gone(self) -> str | None:
        """A client that goes away, before the first token or after some."""
        parts, reset = self.rng.choice((0, 1, 5, 30)), self.rng.random() < 0.5
        status = leave_early(self._as_someone(), self._body(stream=True), parts, reset=reset)
        return None if status == 200 or (parts == 0 and status == 0) else f"status {status}"

    def wrong(self) -> str | None:
        """A request that is refused, with the status that says why."""
        body = self._body(stream=self.rng.random() < 0.5)
        cases: list[tuple[dict[str, object], int]] = [
            (body | {"temperature": 99}, 400),
            (body | {"no_such_parameter": 1}, 400),
            (body | {"messages": []}, 400),
            (body | {"model": "no-such-model"}, 404),
            (body | {"messages": [user(words(3000, self.rng))]}, 400),
        ]
        wrong, expected = self.rng.choice(cases)
        reply = self._ask(wrong)
        return None if reply.status == expected else f"status {reply.status}, expected {expected}: {reply.error}"

    def stranger(self) -> str | None:
        """A request with a key that is nobody's."""
        reply = ask(replace(self.address, key="fam-nobody"), PATH, self._body(stream=False))
        return None if reply.status == 401 else f"status {reply.status}, expected 401"

    def reads(self) -> str | None:
        """The routes that only read."""
        path = self.rng.choice(("/health", "/v1/models", "/metrics"))
        reply = ask(self._as_someone(), path, None)
        return None if reply.status == 200 else f"{path}: status {reply.status}"

    def _ask(self, body: dict[str, object]) -> Reply:
        return ask(self._as_someone(), PATH, body)

    def _as_someone(self) -> Address:
        return replace(self.address, key=self.rng.choice(self.keys))

    def _body(self, *, stream: bool) -> dict[str, object]:
        long_prompt, long_reply = self.rng.random() < 0.2, self.rng.random() < 0.3
        messages = [user(words(250 if long_prompt else 6, self.rng))]
        model = self.rng.choice(("familiar", "familiar", "familiar:memory", "familiar:base"))
        tokens = 200 if long_reply else 20
        return chat("familiar", messages, tokens, stream=stream, never=self.never if long_reply else (), model=model)


KINDS: tuple[tuple[str, int, Callable[[Client], str | None]], ...] = (
    ("whole", 20, Client.whole),
    ("stream", 30, Client.stream),
    ("conversation", 10, Client.conversation),
    ("sampled", 10, Client.sampled),
    ("several", 5, Client.several),
    ("gone", 15, Client.gone),
    ("wrong", 5, Client.wrong),
    ("stranger", 2, Client.stranger),
    ("reads", 3, Client.reads),
)
"""Each kind of request, how often it comes (in 100), and what sends it: None is as it should be."""


def _wrong(reply: Reply) -> str | None:
    return None if reply.ok else f"status {reply.status}: {reply.error or 'the stream broke off'}"


def run_client(client: Client, until: float, tally: Tally) -> None:
    """Ask without pause until the time is over."""
    names, weights, calls = zip(*KINDS, strict=True)
    while time.monotonic() < until:
        (which,) = client.rng.choices(range(len(names)), weights)
        try:
            problem = calls[which](client)
        except (OSError, ValueError, TimeoutError) as error:
            problem = f"{type(error).__name__}: {error}"
        tally.add(names[which], problem)


def load(server: Running, household: Household, never: Sequence[int], minutes: float, tally: Tally) -> list[Sample]:
    """Run the clients and watch the process until the time is over."""
    started = time.monotonic()
    until = started + minutes * 60
    clients = [Client(server.address, household.keys, never, random.Random(number)) for number in range(CLIENTS)]
    threads = [threading.Thread(target=run_client, args=(client, until, tally)) for client in clients]
    for thread in threads:
        thread.start()
    samples: list[Sample] = []
    shown = started
    while time.monotonic() < until and server.process.poll() is None:
        time.sleep(SAMPLE_S)
        try:
            samples.append(sample(server, started))
        except psutil.Error:
            break
        if time.monotonic() - shown >= 30:
            shown, last = time.monotonic(), samples[-1]
            progress(
                f"  {last.minute:5.1f} min: {sum(tally.done.values())} requests, {len(tally.unexpected)} unexpected, "
                f"{last.rss_mb:.1f} MB, {last.open_files} files, {last.threads} threads"
            )
    for thread in threads:
        thread.join()
    return samples


def sample(server: Running, started: float) -> Sample:
    """The process now."""
    return Sample((time.monotonic() - started) / 60, server.rss_mb(), server.open_files(), server.threads())


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The slope of the line through points by least squares; 0 for fewer than two."""
    if len(points) < 2:
        return 0.0
    mid_x, mid_y = mean(x for x, _ in points), mean(y for _, y in points)
    spread = sum((x - mid_x) ** 2 for x, _ in points)
    return sum((x - mid_x) * (y - mid_y) for x, y in points) / spread if spread else 0.0


def slots_at_once(server: Running, household: Household, never: Sequence[int], slots: int) -> int:
    """How many of as many streams as there are slots had begun before the first of them ended."""
    rng = random.Random("slots")
    body = [chat("familiar", [user(words(6, rng))], 300, stream=True, never=never) for _ in range(slots)]
    asks = [(replace(server.address, key=household.keys[n % USERS]), each) for n, each in enumerate(body)]
    replies = [reply for reply in stream_all(asks, timeout_s=300) if reply.ok]
    first_end = min((reply.wall_ms for reply in replies), default=0.0)
    return sum(reply.first_token_ms < first_end for reply in replies)


def judge(samples: Sequence[Sample], before: Sample, after: Sample, report: Report) -> None:
    """Add the figures of the process, and judge them."""
    half, quarter = samples[len(samples) // 2 :], len(samples) // 4
    mb_per_min = slope([(each.minute, each.rss_mb) for each in half])
    quarters = [mean(each.rss_mb for each in samples[n * quarter : (n + 1) * quarter]) for n in range(4)]
    for number, rss_mb in enumerate(quarters, 1):
        report.add(f"rss_mb.quarter_{number}", rss_mb)
    report.add("rss_mb.before", before.rss_mb)
    report.add("rss_mb.after", after.rss_mb)
    report.add("rss_mb_per_min.second_half", mb_per_min)
    report.add("rss.last_over_first_quarter", quarters[3] / quarters[0])
    report.add("open_files.before", before.open_files)
    report.add("open_files.most", max(each.open_files for each in samples))
    report.add("open_files.after", after.open_files)
    report.add("threads.before", before.threads)
    report.add("threads.most", max(each.threads for each in samples))
    report.add("threads.after", after.threads)
    report.at_most("memory's growth in the second half, MB/min", mb_per_min, MAX_MB_PER_MIN)
    report.at_most("open files after, more than after the first requests", after.open_files - before.open_files, 2)


def run(args: argparse.Namespace, site: Site, model: Path, report: Report) -> None:
    """Make the users, start the service, load it and look at what is left."""
    minutes = args.minutes if args.minutes is not None else 1 if args.quick else 20
    never = end_tokens(model)
    household = make_household(site.work / "data", model, [1] * USERS, rank=4)
    sizes = Sizes(args.threads, context_tokens=1024, slots=args.slots)
    tally = Tally()
    with start_familiar(site, model, sizes, data_dir=household.data_dir, key=household.keys[0]) as server:
        progress(f"loading {server.name} for {minutes:g} min with {CLIENTS} clients, {sizes}")
        # What the first requests of each user bring in (threads, adapters) is there before the count begins.
        slots_at_once(server, household, never, args.slots)
        time.sleep(1)
        before = sample(server, time.monotonic())
        samples = load(server, household, never, minutes, tally)
        alive = server.process.poll() is None
        report.add("minutes", minutes)
        report.add("requests", sum(tally.done.values()))
        for kind, count in sorted(tally.done.items()):
            report.add(f"requests.{kind}", count)
        report.add("unexpected", len(tally.unexpected))
        for number, (text, count) in enumerate(Counter(tally.unexpected).most_common(10), 1):
            report.add(f"unexpected.{number}", f"{count} × {text}")
        report.add("alive_at_the_end", alive)
        usable = slots_at_once(server, household, never, args.slots) if alive else 0
        report.add("slots_usable_at_the_end", usable)
        report.at_most("unexpected replies", float(len(tally.unexpected)), 0)
        report.at_least("slots usable at once at the end", float(usable), args.slots)
        if alive and samples:
            time.sleep(5)  # connections of clients that went away are closed within this
            judge(samples, before, sample(server, time.monotonic()), report)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--minutes", type=float, help="20 by default, 1 with --quick")
    parser.add_argument("--model", type=Path, metavar="GGUF", help="instead of the built-in one")
    parser.add_argument("--threads", type=int, default=psutil.cpu_count(logical=False) or 1)
    parser.add_argument("--slots", type=int, default=8)
    args = parser.parse_args()
    model = args.model.resolve() if args.model else ROOT / "daemon" / "models" / "familiar-base.gguf"
    report = Report()
    try:
        with tempfile.TemporaryDirectory(prefix="familiar-load-") as work:
            run(args, Site(None, Path(work)), model, report)
    except (RuntimeError, OSError) as error:
        sys.exit(f"load: {error}")
    report.finish(args.json)


if __name__ == "__main__":
    main()
