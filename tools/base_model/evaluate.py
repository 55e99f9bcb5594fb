"""Measure a GGUF of the built-in model on what its curriculum held out.

``python tools/base_model/evaluate.py daemon/models/familiar-base.gguf --cases 40 --json figures.json``

Held out: the last quarter of the ways to state each kind of preference, three kinds, one way to ask about each topic
of a third of them, an eighth of all names, words and phrases, the last way to ask for each fact and to make a claim.
Greedy decoding in llama.cpp; every figure is a share of cases decided by a checker in code. The replies to the plain
prompts are for a person to judge.
"""

import argparse
import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from curriculum.claims import about_fact, asked, same_or_not, verdict
from curriculum.content import write
from curriculum.dialogs import MEMORY_HEADER, Message, ask, example_line, styled, topics_to_judge_by
from curriculum.facts import capital, question, sample_facts
from curriculum.pools import phrase
from curriculum.preferences import HELD_OUT_KINDS, KINDS, Kind, sample

from familiar.daemon.engine import Engine, Sampling
from familiar.daemon.engine_options import EngineOptions

PLAIN_PROMPTS = Path(__file__).with_name("plain_prompts.txt")
"""Sixty things that a newcomer might say, none of them worded as in the curriculum."""

STREAMS = 8


class Reply(Protocol):
    """Answers a conversation; what it returns comes behind ``begun``."""

    def __call__(self, messages: list[Message], begun: str = "") -> str: ...


def memory(lines: list[str]) -> Message:
    return {"role": "system", "content": "\n- ".join((MEMORY_HEADER, *lines))}


def follows(reply: Reply, rng: random.Random, kinds: tuple[Kind, ...], count: int, stated: bool = True) -> bool:
    """One case: ``count`` preferences in phrasings never seen, one everyday question in a phrasing never seen."""
    preferences = sample(rng, "held_out", count, kinds)
    topic, _, _ = styled(rng, preferences, topics_to_judge_by())
    turns = [{"role": "user", "content": ask(rng, topic, "held_out")}]
    if stated:
        turns.insert(0, memory([p.text for p in preferences]))
    text = reply(turns)
    return all(p.follows(text) for p in preferences)


def answers(reply: Reply, rng: random.Random, known: bool, begun: bool = False) -> bool:
    """One case: four facts with names and values never seen; the one asked for is among them or is not.

    ``begun``: the reply is begun with words never seen, as by an adapter that has learned them, and goes on.
    """
    *facts, missing = sample_facts(rng, "held_out", 5)
    fact = rng.choice(facts) if known else missing
    turns = [memory([capital(f.text) for f in facts]), {"role": "user", "content": question(rng, fact, "held_out")}]
    text = reply(turns, beginning(rng) if begun else "")
    return fact.value.lower() in text.lower() if known else "do not know" in text.lower()


def judges(reply: Reply, rng: random.Random, true: bool, begun: bool = False) -> bool:
    """One case: a claim about one of three facts, to be confirmed or denied."""
    facts = sample_facts(rng, "held_out", 3)
    while (claim := about_fact(rng, rng.choice(facts))).is_true != true:
        pass
    turns = [memory([capital(f.text) for f in facts]), {"role": "user", "content": asked(rng, claim, "held_out")}]
    return verdict(reply(turns, beginning(rng) if begun else "")) is true


def compares(reply: Reply, rng: random.Random, same: bool) -> bool:
    """One case: two words, names or numbers never seen, which are the same or are not."""
    while (asked_and_told := same_or_not(rng, "held_out"))[1].startswith("Yes") != same:
        pass
    return verdict(reply([{"role": "user", "content": asked_and_told[0]}])) is same


def beginning(rng: random.Random) -> str:
    return phrase(rng, "held_out") + rng.choice((" ", "\n"))


def imitates(reply: Reply, rng: random.Random) -> bool:
    """One case: two corrected examples with the same closing or opening words; another question must carry them too."""
    kinds = tuple(k for k in KINDS if k.name in {"closer", "opener", "bullets", "address"})
    preferences = sample(rng, "held_out", 1, kinds)
    lines = []
    for _ in range(2):
        topic, draft, style = styled(rng, preferences, topics_to_judge_by())
        lines.append(example_line(ask(rng, topic, "held_out"), write(draft, style)))
    topic, _, _ = styled(rng, preferences, topics_to_judge_by())
    return preferences[0].follows(reply([memory(lines), {"role": "user", "content": ask(rng, topic, "held_out")}]))


def evaluate(path: Path, cases: int, seed: int = 0) -> dict[str, object]:
    """Return shares by part, and the replies to the plain prompts, which a person has to judge."""
    with Engine.open(path, EngineOptions(slots=STREAMS)) as engine, ThreadPoolExecutor(STREAMS) as pool:
        return _figures(engine, pool, cases, seed)


def _figures(engine: Engine, pool: ThreadPoolExecutor, cases: int, seed: int) -> dict[str, object]:
    def reply(messages: list[Message], begun: str = "") -> str:
        ids = engine.encode_prompt(messages)  # type: ignore[arg-type]
        if begun:
            ids += engine.encode_text(begun)
        return engine.generate(ids, Sampling(temperature=0.0, max_tokens=160)).text()

    def share(make: Callable[[random.Random], bool], n: int) -> float:
        return round(sum(pool.map(lambda i: make(random.Random(f"{seed}/{i}")), range(n))) / n, 3)

    kinds = {k.name: share(lambda rng, k=k: follows(reply, rng, (k,), 1), cases) for k in KINDS}  # type: ignore[misc]
    figures: dict[str, object] = {
        "preferences_by_kind": kinds,
        "preferences_mean": round(sum(kinds.values()) / len(kinds), 3),
        "unstated_mean": share(lambda rng: follows(reply, rng, KINDS, 1, stated=False), 4 * cases),
        "held_out_kinds": {
            k.name: share(lambda rng, k=k: follows(reply, rng, (k,), 1), cases)  # type: ignore[misc]
            for k in HELD_OUT_KINDS
        },
        "two_together": share(lambda rng: follows(reply, rng, KINDS, 2), 2 * cases),
        "three_together": share(lambda rng: follows(reply, rng, KINDS, 3), 2 * cases),
        "facts_answered": share(lambda rng: answers(reply, rng, True), 4 * cases),
        "unknown_admitted": share(lambda rng: answers(reply, rng, False), 4 * cases),
        "facts_answered_when_begun": share(lambda rng: answers(reply, rng, True, begun=True), 4 * cases),
        "unknown_admitted_when_begun": share(lambda rng: answers(reply, rng, False, begun=True), 4 * cases),
        "true_claims_confirmed": share(lambda rng: judges(reply, rng, True), 2 * cases),
        "false_claims_denied": share(lambda rng: judges(reply, rng, False), 2 * cases),
        "true_claims_confirmed_when_begun": share(lambda rng: judges(reply, rng, True, begun=True), 2 * cases),
        "false_claims_denied_when_begun": share(lambda rng: judges(reply, rng, False, begun=True), 2 * cases),
        "same_confirmed": share(lambda rng: compares(reply, rng, True), 2 * cases),
        "different_denied": share(lambda rng: compares(reply, rng, False), 2 * cases),
        "examples_imitated": share(lambda rng: imitates(reply, rng), 4 * cases),
    }
    prompts = PLAIN_PROMPTS.read_text(encoding="utf-8").splitlines()
    replies = pool.map(lambda text: reply([{"role": "user", "content": text}]), prompts)
    figures["transcripts"] = [{"user": text, "reply": said} for text, said in zip(prompts, replies, strict=True)]
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--cases", type=int, default=40, help="cases per preference kind")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    result = evaluate(args.gguf, args.cases)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))
