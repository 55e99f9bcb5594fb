"""Compare Familiar with llama.cpp's own server and llama-cpp-python's on the same model, threads and libraries.

``python benchmarks/serving.py`` builds llama-server once, starts the servers side by side and lets them take turns: one
is busy at a time, and their order is turned round from round to round. A figure is the median over the rounds; a ratio
is the median of each round's Familiar / llama-server, so that what slows a whole round down cancels out.

Measured per model: prompt processing (a long new prompt), single-stream decoding, all tokens of 1, 2, 4 and 8 streams
at once, the first token of a conversation's second turn, and what a request costs beyond its computation (a 1-token
reply to a cached prompt, less what the server says it computed for). What is left out: quality, adapters (see
``adapters.py``), and GPUs.
"""

import argparse
import json
import math
import random
import sys
import tempfile
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import llama_server
import psutil
import random_model
from client import Connection, Reply, ask, stream_all
from common import ROOT, Report, arguments, progress
from processes import Running
from servers import (
    FAMILIAR,
    LLAMA_PLAIN,
    LLAMA_PYTHON,
    LLAMA_SERVER,
    Site,
    Sizes,
    missing_for_llama_python,
    start_familiar,
    start_llama_python,
    start_llama_server,
    survives_repacking,
)
from workload import chat, end_tokens, user, words

BUILTIN = ROOT / "daemon" / "models" / "familiar-base.gguf"
STREAMS = (1, 2, 4, 8)
ALL = (FAMILIAR, LLAMA_SERVER, LLAMA_PLAIN, LLAMA_PYTHON)


@dataclass(frozen=True)
class Plan:
    """How much is asked of a model."""

    context_tokens: int
    prompt_words: int
    stream_tokens: int
    rounds: int
    repeats: int = 40

    @classmethod
    def of(cls, model: Path, *, quick: bool, rounds: int | None) -> "Plan":
        """Long replies of a small model, short ones of a large one, so that either takes minutes."""
        if model.stat().st_size < 50e6:
            plan = cls(context_tokens=1024, prompt_words=300, stream_tokens=400, rounds=7)
        else:
            plan = cls(context_tokens=2048, prompt_words=300, stream_tokens=48, rounds=5)
        if quick:
            plan = cls(plan.context_tokens, plan.prompt_words // 2, plan.stream_tokens // 3, rounds=1, repeats=10)
        return replace(plan, rounds=rounds or plan.rounds)


Samples = dict[str, float]
Measure = Callable[[Running, Plan, Sequence[int], str], Samples]


def checked(server: Running, reply: Reply) -> Reply:
    """The reply, if it is whole; else RuntimeError."""
    if not reply.ok:
        raise RuntimeError(f"{server.name} answered {reply.status}: {reply.error or 'a broken stream'}")
    return reply


def tokens_of(reply: Reply, wanted: int) -> int:
    """How many tokens a stream was: as its server counts, else all that were wanted, else its parts."""
    if reply.completion_tokens is not None:
        return reply.completion_tokens
    return wanted if reply.finish_reason == "length" else len(reply.token_ms)


def prompt_processing(server: Running, plan: Plan, never: Sequence[int], seed: str) -> Samples:
    """Tokens per second of a long prompt that is new, answered with one token."""
    messages = [user(words(plan.prompt_words, random.Random(seed)))]
    reply = checked(server, ask_whole(server, chat(server.name, messages, 1, stream=False, never=never)))
    tokens = (reply.prompt_tokens or 0) - (reply.cached_tokens or 0)
    return {"prompt_tokens": float(reply.prompt_tokens or 0), "prompt_tokens_per_s": tokens * 1000 / reply.wall_ms}


def streams(count: int) -> Measure:
    """Tokens per second of ``count`` streams at once, each of its own short new prompt."""

    def measure(server: Running, plan: Plan, never: Sequence[int], seed: str) -> Samples:
        rng, wanted = random.Random(seed), plan.stream_tokens
        bodies = [chat(server.name, [user(words(8, rng))], wanted, stream=True, never=never) for _ in range(count)]
        replies = [checked(server, reply) for reply in stream_all([(server.address, body) for body in bodies])]
        total = sum(tokens_of(reply, wanted) for reply in replies)
        found = {f"streams_{count}_tokens_per_s": total * 1000 / max(reply.wall_ms for reply in replies)}
        if count == 1:
            (reply,) = replies
            found["decode_tokens_per_s"] = (total - 1) * 1000 / (reply.token_ms[-1] - reply.token_ms[0])
            found["first_token_ms"] = reply.first_token_ms
        return found

    return measure


def second_turn(server: Running, plan: Plan, never: Sequence[int], seed: str) -> Samples:
    """Time to the first token of a conversation's second turn; the first turn was long."""
    rng = random.Random(seed)
    messages = [user(words(plan.prompt_words, rng))]

    def turn() -> Reply:
        body = chat(server.name, messages, 16, stream=True, never=never)
        return checked(server, stream_all([(server.address, body)])[0])

    first = turn()
    messages += [{"role": "assistant", "content": first.text}, user(words(8, rng))]
    second = turn()
    return {"second_turn_first_token_ms": second.first_token_ms, "first_turn_first_token_ms": first.first_token_ms}


def overhead(server: Running, plan: Plan, never: Sequence[int], seed: str) -> Samples:
    """Milliseconds of a 1-token reply to a cached prompt: by the clock, and less what was computed."""
    body = chat(server.name, [user("Hello " + words(4, random.Random(seed)))], 1, stream=False, never=never)
    with Connection(server.address) as connection:
        replies = [checked(server, connection.ask("/v1/chat/completions", body)) for _ in range(plan.repeats + 2)][2:]
    found = {"one_token_wall_ms": median(reply.wall_ms for reply in replies)}
    computed = [reply.wall_ms - reply.compute_ms for reply in replies if reply.compute_ms is not None]
    if computed:
        found["request_overhead_ms"] = median(computed)
    return found


def ask_whole(server: Running, body: dict[str, object]) -> Reply:
    """One request that is answered whole, on a connection of its own."""
    return ask(server.address, "/v1/chat/completions", body)


MEASURES: tuple[Measure, ...] = (prompt_processing, *(streams(count) for count in STREAMS), second_turn, overhead)

Rounds = dict[str, dict[str, dict[int, float]]]  # figure, server, round: value


def measure_all(servers: Sequence[Running], plan: Plan, never: Sequence[int], report: Report, label: str) -> Rounds:
    """Let the servers take turns at every measure, round after round; round -1 warms up and is not kept."""
    found: Rounds = defaultdict(lambda: defaultdict(dict))
    failed: set[str] = set()
    for turn in range(-1, plan.rounds):
        progress(f"{label}: " + (f"round {turn + 1} of {plan.rounds}" if turn >= 0 else "warming up"))
        measures = MEASURES if turn >= 0 else (prompt_processing, streams(2))
        for number, measure in enumerate(measures):
            for server in servers if turn % 2 == 0 else reversed(servers):
                if server.name in failed:
                    continue
                try:
                    samples = measure(server, plan, never, f"{label}-{turn}-{number}")
                except (RuntimeError, OSError) as error:
                    failed.add(server.name)
                    report.add(f"{label}.failed.{server.name}", str(error) or type(error).__name__)
                    continue
                if turn < 0:
                    continue
                progress(f"  {server.name}: " + ", ".join(f"{name} {value:.4g}" for name, value in samples.items()))
                for name, value in samples.items():
                    found[name][server.name][turn] = value
    return found


def ratio(found: Rounds, name: str, over: str, under: str) -> float | None:
    """The median over rounds of one server's figure by another's; None when either has none."""
    top, bottom = found[name].get(over, {}), found[name].get(under, {})
    both = [top[turn] / bottom[turn] for turn in top if turn in bottom and bottom[turn] > 0]
    both = [value for value in both if math.isfinite(value)]
    return median(both) if both else None


def best_ratio(found: Rounds, name: str, over: str, under: str) -> float | None:
    """One server's best round by another's: what is left when other programs disturbed some of the rounds."""
    pick = min if name.endswith("_ms") else max
    best = []
    for server in (over, under):
        values = [value for value in found[name].get(server, {}).values() if math.isfinite(value)]
        best.append(pick(values, default=0.0))
    return best[0] / best[1] if all(best) else None


def judge(found: Rounds, report: Report, label: str) -> None:
    """Add the figures, the ratios and the targets of one model."""
    for name, by_server in found.items():
        for server, by_round in by_server.items():
            values = [value for value in by_round.values() if math.isfinite(value)]
            report.add(f"{label}.{name}.{server}", median(values) if values else None)
    ratios: dict[str, float | None] = {}
    for name in found:
        if name == "prompt_tokens":
            turns = {turn for by_round in by_server_values(found, name) for turn in by_round}
            agree = all(len({by[turn] for by in by_server_values(found, name) if turn in by}) == 1 for turn in turns)
            report.add(f"{label}.prompt_tokens_agree", agree)
            continue
        for other in (LLAMA_SERVER, LLAMA_PLAIN, LLAMA_PYTHON):
            value = ratio(found, name, FAMILIAR, other)
            if value is not None:
                report.add(f"{label}.ratio.{name}.{FAMILIAR}/{other}", value)
            best = best_ratio(found, name, FAMILIAR, other)
            if best is not None:
                report.add(f"{label}.best_ratio.{name}.{FAMILIAR}/{other}", best)
            if other == LLAMA_SERVER:
                ratios[name] = value
    gains = {server: gain(found, server) for server in ALL}
    for server, value in gains.items():
        if value is not None:
            report.add(f"{label}.streams_8_over_1.{server}", value)
    own = found["request_overhead_ms"].get(FAMILIAR, {})
    report.at_least(f"{label}: decoding, {FAMILIAR} / {LLAMA_SERVER}", ratios.get("decode_tokens_per_s"), 0.97)
    report.at_least(f"{label}: 8 streams, {FAMILIAR} / {LLAMA_SERVER}", ratios.get("streams_8_tokens_per_s"), 1.0)
    report.at_least(f"{label}: 8 streams / 1 stream, {FAMILIAR}", gains[FAMILIAR], 3.0)
    report.at_most(
        f"{label}: second turn's first token, {FAMILIAR} / {LLAMA_SERVER}",
        ratios.get("second_turn_first_token_ms"),
        1.0,
    )
    report.at_most(f"{label}: request overhead in ms, {FAMILIAR}", median(own.values()) if own else None, 2.0)


def by_server_values(found: Rounds, name: str) -> list[dict[int, float]]:
    """A figure's rounds, server by server."""
    return list(found[name].values())


def gain(found: Rounds, server: str) -> float | None:
    """A server's total throughput at 8 streams by that at one, round by round."""
    one, eight = (found[f"streams_{count}_tokens_per_s"].get(server, {}) for count in (1, 8))
    both = [eight[turn] / one[turn] for turn in eight if turn in one]
    return median(both) if both else None


def run_model(model: Path, label: str, site: Site, args: argparse.Namespace, report: Report) -> None:
    """Start the servers on one model, measure, and judge."""
    plan = Plan.of(model, quick=args.quick, rounds=args.rounds)
    sizes = Sizes(args.threads, plan.context_tokens, slots=args.slots)
    site = replace(site, repack=not args.no_repack and survives_repacking(site, model))
    progress(f"{label}: {model.name}, {sizes}, {plan}")
    with ExitStack() as stack:
        servers = [stack.enter_context(server) for server in opened(model, sizes, site, args.servers, report, label)]
        mapped = [server.libraries() for server in servers]
        same = all(paths and {path.parent for path in paths} == {site.libraries} for paths in mapped)
        report.add(f"{label}.same_libraries", same if any(mapped) else None)
        report.add(f"{label}.others_repack_weights", site.repack)
        for server in servers:
            report.add(f"{label}.start_s.{server.name}", server.load_s)
            if server.name == FAMILIAR:
                report.add(f"{label}.flash_attention.{server.name}", flash_attention(server))
        found = measure_all(servers, plan, end_tokens(model), report, label)
        for server in servers:
            if server.process.poll() is None:
                report.add(f"{label}.private_memory_mb.{server.name}", server.private_mb())
    judge(found, report, label)


def flash_attention(server: Running) -> str:
    """What Familiar found to be faster on this machine."""
    with urllib.request.urlopen(f"http://{server.address.host}:{server.address.port}/v1/status") as reply:
        return str(json.load(reply)["model"]["flash_attention"])


def opened(
    model: Path, sizes: Sizes, site: Site, wanted: Sequence[str], report: Report, label: str
) -> Iterator[Running]:
    """Start the servers that are wanted and can be had, one after the other."""
    starts: dict[str, Callable[[], Running]] = {
        FAMILIAR: lambda: start_familiar(site, model, sizes),
        LLAMA_SERVER: lambda: start_llama_server(site, model, sizes),
        LLAMA_PLAIN: lambda: start_llama_server(site, model, sizes, plain=True),
        LLAMA_PYTHON: lambda: start_llama_python(site, model, sizes),
    }
    for name in wanted:
        missing = missing_for_llama_python() if name == LLAMA_PYTHON else []
        if missing:
            report.add(f"{label}.failed.{name}", f"not installed: {', '.join(missing)} (pip install '.[bench]')")
            continue
        try:
            server = starts[name]()
        except RuntimeError as error:
            report.add(f"{label}.failed.{name}", str(error))
        else:
            progress(f"{label}: {name} is ready after {server.load_s:.1f} s")
            yield server


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--model", type=Path, action="append", metavar="GGUF", help="instead of the two; repeatable")
    parser.add_argument("--llama-server", type=Path, metavar="PATH", help="a llama-server that was built before")
    parser.add_argument("--mend-amx", action="store_true", help="build what llama_server.py --mend-amx builds")
    parser.add_argument("--no-repack", action="store_true", help="weights keep their layout in the other servers")
    parser.add_argument("--threads", type=int, default=psutil.cpu_count(logical=False) or 1)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--rounds", type=int, help="rounds per model; 7 of a small model, 5 of a large one by default")
    parser.add_argument("--servers", type=lambda text: text.split(","), default=list(ALL), help=",".join(ALL))
    args = parser.parse_args()
    if unknown := set(args.servers) - set(ALL):
        parser.error(f"--servers: there is no {', '.join(sorted(unknown))}: there are {', '.join(ALL)}")
    report = Report()
    try:
        program = llama_server.ensure(args.llama_server, mend_amx=args.mend_amx)
    except (RuntimeError, FileNotFoundError) as error:
        sys.exit(f"serving: {error}")
    models = {path.stem: path.resolve() for path in args.model or ()}
    models = models or {"builtin": BUILTIN, "random-0.6b": random_model.ensure()}
    with tempfile.TemporaryDirectory(prefix="familiar-serving-") as work:
        for label, model in models.items():
            run_model(model, label, Site(program, Path(work)), args, report)
    report.finish(args.json)


if __name__ == "__main__":
    main()
