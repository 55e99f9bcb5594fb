"""Measure adapters: eight users with one each at the same time, swapping, and a hundred in memory at once.

``python benchmarks/adapters.py`` runs Familiar, where each user's key brings their own adapter, beside llama.cpp's
server with the same files given at its start and chosen per request, on a model of Qwen3-0.6B's shape with random
adapters of rank 16 on all seven projections. The two take turns, as in ``serving.py``.

- *interleaved*: eight users ask at once, each under their own adapter. ``one_adapter`` is the same load under one,
  ``no_adapter`` under none. Fairness is the longest reply by the mean.
- *crowd*: the first token of three users who come when another has just asked twice as much as there are slots.
- *swap*: a 1-token reply to a cached prompt when the adapter changes with every request, less one when it does not;
  *cold*: a version's first request, which reads its file.
- *resident*: memory that each of a hundred adapters takes, and whether all of them stayed.

What is left out: what an adapter is good for.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median

import llama_server
import psutil
import random_model
from adapter_files import Household, make_household
from client import Address, Connection, Reply, stream_all
from common import Report, arguments, progress
from processes import Running
from servers import FAMILIAR, LLAMA_SERVER, Site, Sizes, start_familiar, start_llama_server, survives_repacking
from workload import chat, end_tokens, user, words

USERS = 8
CROWD_LATER = 3
FAIR = 2.0
SURELY_KEPT = 20
"""Adapters that any cache has room for: what each takes is told by these."""


@dataclass(frozen=True)
class Load:
    """What is asked, and how often."""

    tokens: int
    rounds: int
    swaps: int
    never: tuple[int, ...]


Ask = Callable[[int | None, list[dict[str, str]], int, bool], tuple[Address, dict[str, object]]]
"""Makes a request under the adapter of a user by number (None: under none): messages, tokens, whether to stream."""


def asks_familiar(server: Running, household: Household, never: Sequence[int]) -> Ask:
    """Requests to Familiar: the key says whose adapter it is."""

    def make(
        number: int | None, messages: list[dict[str, str]], tokens: int, stream: bool
    ) -> tuple[Address, dict[str, object]]:
        model = "familiar" if number is not None else "familiar:memory"
        body = chat(FAMILIAR, messages, tokens, stream=stream, never=never, model=model)
        return replace(server.address, key=household.keys[1 + (number or 0)]), body

    return make


def asks_llama_server(server: Running, never: Sequence[int]) -> Ask:
    """Requests to llama-server: a field says which of the adapters that it was started with."""

    def make(
        number: int | None, messages: list[dict[str, str]], tokens: int, stream: bool
    ) -> tuple[Address, dict[str, object]]:
        body = chat(LLAMA_SERVER, messages, tokens, stream=stream, never=never)
        body["lora"] = [{"id": each, "scale": 1.0 if each == number else 0.0} for each in range(USERS)]
        return server.address, body

    return make


def checked(replies: Sequence[Reply]) -> Sequence[Reply]:
    """The replies, if all are whole; else RuntimeError."""
    for reply in replies:
        if not reply.ok:
            raise RuntimeError(f"a request ended with {reply.status}: {reply.error or 'a broken stream'}")
    return replies


def together(ask: Ask, adapters: Sequence[int | None], tokens: int, seed: str) -> dict[str, float]:
    """One stream for each of ``adapters``, all at once: tokens per second, and how evenly they were served."""
    rng = random.Random(seed)
    replies = checked(stream_all([ask(each, [user(words(8, rng))], tokens, True) for each in adapters]))
    walls, firsts = [reply.wall_ms for reply in replies], [reply.first_token_ms for reply in replies]
    return {
        "tokens_per_s": sum(reply.completion_tokens or 0 for reply in replies) * 1000 / max(walls),
        "longest_over_mean": max(walls) / mean(walls),
        "first_token_longest_over_mean": max(firsts) / mean(firsts),
        "first_token_ms": mean(firsts),
    }


def crowd(ask: Ask, tokens: int, slots: int, seed: str) -> dict[str, float]:
    """The first token of users who come last, behind one who asked twice as much as there are slots."""
    rng = random.Random(seed)
    askers = [0] * (2 * slots) + list(range(1, 1 + CROWD_LATER))
    replies = checked(stream_all([ask(each, [user(words(8, rng))], tokens, True) for each in askers]))
    own = [reply.first_token_ms for reply in replies[2 * slots :]]
    return {"others_first_token_ms": mean(own), "all_done_ms": max(reply.wall_ms for reply in replies)}


def swapping(ask: Ask, swaps: int, seed: str) -> dict[str, float]:
    """Milliseconds of a 1-token reply to a cached prompt: under one adapter, and under two in turn."""
    messages = [user("Hello " + words(4, random.Random(seed)))]
    times: dict[str, list[float]] = {"same": [], "alternating": []}
    with ExitStack() as stack:
        connections = [stack.enter_context(Connection(ask(each, messages, 1, False)[0])) for each in (0, 1)]
        bodies = [ask(each, messages, 1, False)[1] for each in (0, 1)]

        def one(which: int) -> float:
            return checked([connections[which].ask("/v1/chat/completions", bodies[which])])[0].wall_ms

        for _ in range(2):  # the prompts are cached under both
            one(0), one(1)
        for _ in range(swaps):
            one(0)
            times["same"] += [one(0), one(0)]
            times["alternating"] += [one(1), one(0)]
    same, alternating = median(times["same"]), median(times["alternating"])
    return {"same_ms": same, "alternating_ms": alternating, "swap_ms": alternating - same}


def compare(running: dict[str, Running], asks: dict[str, Ask], load: Load, slots: int, report: Report) -> None:
    """Let the servers take turns at the loads of eight users, and judge."""
    own, one, none = list(range(USERS)), [0] * USERS, [None] * USERS
    measures: dict[str, Callable[[Ask, str], dict[str, float]]] = {
        "interleaved": lambda ask, seed: together(ask, own, load.tokens, seed),
        "one_adapter": lambda ask, seed: together(ask, one, load.tokens, seed),
        "no_adapter": lambda ask, seed: together(ask, none, load.tokens, seed),
        "crowd": lambda ask, seed: crowd(ask, max(4, load.tokens // 4), slots, seed),
        "swap": lambda ask, seed: swapping(ask, load.swaps, seed),
    }
    found: dict[str, dict[str, list[float]]] = {}
    for turn in range(-1, load.rounds):
        progress(f"round {turn + 1} of {load.rounds}" if turn >= 0 else "warming up")
        for name, measure in measures.items():
            if turn < 0 and name != "interleaved":
                continue
            for server in list(asks) if turn % 2 == 0 else list(asks)[::-1]:
                try:
                    samples = measure(asks[server], f"{turn}-{name}")
                except (RuntimeError, OSError) as error:
                    raise RuntimeError(f"{name}: {error}; {running[server].state()}") from error
                if turn < 0:
                    continue
                progress(f"  {name}, {server}: " + ", ".join(f"{key} {value:.4g}" for key, value in samples.items()))
                for key, value in samples.items():
                    found.setdefault(f"{name}.{key}", {}).setdefault(server, []).append(value)
    for name, by_server in found.items():
        for server, values in by_server.items():
            report.add(f"{name}.{server}", median(values))
    ratios = {}
    for name, by_server in found.items():
        if name.endswith("tokens_per_s") and len(by_server) == 2:
            pairs = zip(by_server[FAMILIAR], by_server[LLAMA_SERVER], strict=True)
            ratios[name] = median(ours / theirs for ours, theirs in pairs)
            report.add(f"ratio.{name}", ratios[name])
    ours = {name: median(by_server[FAMILIAR]) for name, by_server in found.items() if FAMILIAR in by_server}
    report.at_least(
        f"8 users' own adapters, tokens/s, {FAMILIAR} / {LLAMA_SERVER}", ratios.get("interleaved.tokens_per_s"), 1.0
    )
    report.at_most("swap in ms", ours.get("swap.swap_ms"), 50)
    report.at_most("8 users: the longest reply by the mean", ours.get("interleaved.longest_over_mean"), FAIR)


def resident(server: Running, household: Household, count: int, report: Report) -> None:
    """Ask for every version of the default user once and once again, and see what memory they took."""
    body = chat(FAMILIAR, [user("Hello")], 1, stream=False)
    file_mb = household.files[0][0].stat().st_size / 1e6
    some = min(count, SURELY_KEPT)
    times: list[list[float]] = [[], []]
    with Connection(replace(server.address, key=household.keys[0])) as connection:

        def one(number: int) -> float:
            return checked([connection.ask("/v1/chat/completions", body | {"model": f"familiar:v{number}"})])[0].wall_ms

        before = server.rss_mb()
        times[0] += [one(number) for number in range(1, some + 1)]
        each_mb = (server.rss_mb() - before) / some
        times[0] += [one(number) for number in range(some + 1, count + 1)]
        growth_mb = server.rss_mb() - before
        progress(f"  {count} adapters were asked for")
        # Backwards: with a cache that is too small, what was used last is asked for first, and the rest is loaded anew.
        times[1] += [one(number) for number in range(count, 0, -1)]
    stayed = min(count, round(growth_mb / each_mb))
    report.add("resident.adapters_asked_for", count)
    report.add("resident.file_mb", file_mb)
    report.add("resident.growth_mb", growth_mb)
    report.add(f"resident.mb_per_adapter.{FAMILIAR}", each_mb)
    report.add("resident.adapters_that_stayed", stayed)
    report.add("resident.cold_ms", median(times[0]))
    report.add("resident.warm_ms", median(times[1]))
    report.add("resident.cold_less_warm_ms", median(times[0]) - median(times[1]))
    report.at_least(f"adapters of {count} that stay in memory", float(stayed), count)


def llama_server_memory(site: Site, model: Path, sizes: Sizes, files: Sequence[Path], report: Report) -> None:
    """What the same adapters take in llama-server, which loads all of them at its start."""
    with start_llama_server(site, model, sizes) as bare:
        without = bare.rss_mb()
    with start_llama_server(site, model, sizes, adapters=files) as server:
        report.add(f"resident.mb_per_adapter.{LLAMA_SERVER}", (server.rss_mb() - without) / len(files))
        report.add(f"resident.start_s.{LLAMA_SERVER}", server.load_s)


def measure(args: argparse.Namespace, model: Path, site: Site, report: Report) -> None:
    """Write the adapters, start the servers, measure."""
    count = 12 if args.quick and args.adapters == 100 else args.adapters
    sizes = Sizes(args.threads, context_tokens=1024, slots=args.slots)
    load = Load(16, 1, 5, ()) if args.quick else Load(24, args.rounds, 10, ())
    load = replace(load, never=tuple(end_tokens(model)))
    progress(f"writing {count + USERS} adapters for {model.name} …")
    household = make_household(site.work / "data", model, [count] + [1] * USERS)
    own = [files[0] for files in household.files[1:]]
    with ExitStack() as stack:
        ours = stack.enter_context(
            start_familiar(site, model, sizes, data_dir=household.data_dir, key=household.keys[0])
        )
        theirs = stack.enter_context(start_llama_server(site, model, sizes, adapters=own))
        asks = {
            FAMILIAR: asks_familiar(ours, household, load.never),
            LLAMA_SERVER: asks_llama_server(theirs, load.never),
        }
        compare({ours.name: ours, theirs.name: theirs}, asks, load, sizes.slots, report)
        theirs.stop()
        resident(ours, household, count, report)
    llama_server_memory(site, model, sizes, household.files[0], report)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--model", type=Path, metavar="GGUF", help="instead of the random one of 0.6 B parameters")
    parser.add_argument("--adapters", type=int, default=100, help="how many are to be in memory at once")
    parser.add_argument("--llama-server", type=Path, metavar="PATH", help="a llama-server that was built before")
    parser.add_argument("--mend-amx", action="store_true", help="build what llama_server.py --mend-amx builds")
    parser.add_argument("--no-repack", action="store_true", help="weights keep their layout in the other server")
    parser.add_argument("--threads", type=int, default=psutil.cpu_count(logical=False) or 1)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help="folder for the adapters, 4 GB of them; the system's by default")
    args = parser.parse_args()
    report = Report()
    try:
        program = llama_server.ensure(args.llama_server, mend_amx=args.mend_amx)
        model = args.model.resolve() if args.model else random_model.ensure(0.25 if args.quick else 1.0)
        with tempfile.TemporaryDirectory(prefix="familiar-adapters-", dir=args.work) as work:
            site = Site(program, Path(work))
            site = replace(site, repack=not args.no_repack and survives_repacking(site, model))
            report.add("other_repacks_weights", site.repack)
            measure(args, model, site, report)
    except (RuntimeError, OSError) as error:
        sys.exit(f"adapters: {error}")
    report.finish(args.json)


if __name__ == "__main__":
    main()
