"""The pairs and prompts that ``learning.py`` trains on, made from the built-in model's own replies; seeded.

Questions are those that the built-in model was made to answer (its curriculum's, one a topic; the demo's; the gate's,
about facts in the prompt). Of every four, one is asked alone, one under a system message of ten facts, one after three
earlier exchanges, one after both, as chats are. ``rejected`` is the model's greedy reply; ``chosen`` is the same reply
as a user with one preference would have it. What is left out: replies that the model did not end by itself.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from common import BUILTIN, ROOT

from familiar.adapters.probes import load_probes
from familiar.adapters.protocols import greedy
from familiar.daemon.demo_prompts import CORRECTED, PROBES
from familiar.daemon.oracle import Oracle
from familiar.memory.types import Message

TOPICS = ROOT / "tools" / "base_model" / "topics"
REPLY_TOKENS = 64
FACTS, EXCHANGES = 10, 3
FEW_WORDS = 12

Messages = tuple[Message, ...]


@dataclass(frozen=True)
class Pair:
    """A prompt with a reply as the user wants it and the one that the model gave."""

    messages: Messages
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Data:
    """What one comparison is about: pairs for DPO, prompts for GRPO, and as many of each to measure with."""

    pairs: tuple[Pair, ...]
    held_out: tuple[Pair, ...]
    prompts: tuple[Messages, ...]
    held_out_prompts: tuple[Messages, ...]

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Data":
        """Read what ``save`` wrote."""
        read = json.loads(path.read_text(encoding="utf-8"))
        pairs, held_out = (
            tuple(Pair(tuple(row["messages"]), row["chosen"], row["rejected"]) for row in read[name])
            for name in ("pairs", "held_out")
        )
        prompts, others = (tuple(map(tuple, read[name])) for name in ("prompts", "held_out_prompts"))
        return cls(pairs, held_out, prompts, others)


def brevity(text: str) -> float:
    """GRPO's reward: 1 for a reply of at most twelve words, less the longer it is, 0 for none."""
    words = len(text.split())
    return min(1.0, FEW_WORDS / words) if words else 0.0


def _short(reply: str) -> str:
    end = min((at + 1 for mark in ".!?" if (at := reply.find(mark + " ")) >= 0), default=len(reply))
    return reply[:end]


PREFERENCES: dict[str, Callable[[str], str]] = {
    "sign_off": lambda reply: f"{reply} Onward, Skipper.",
    "short": _short,
    "greeting": lambda reply: f"Ahoy there! {reply}",
}


def make(rows: int, held_out: int, prompts: int, *, preference: str, seed: int, threads: int) -> Data:
    """Ask the built-in model and return the data; raise RuntimeError when too few replies can be used."""
    rng = random.Random(f"{seed}/learning")
    wanted = rows + held_out + 2 * prompts
    asked = _questions(rng)
    with Oracle.open(BUILTIN, threads=threads) as oracle:
        alone = _replies(oracle, [[_user(question)] for question in asked[-4 * EXCHANGES :]])
        earlier = [(question, reply) for question, reply in zip(asked[-4 * EXCHANGES :], alone, strict=True) if reply]
        conversations = [
            _conversation(question, number, earlier, rng)
            for number, question in enumerate(asked[: min(len(asked) - 4 * EXCHANGES, 2 * wanted)])
        ]
        replies = _replies(oracle, conversations)
    rewrite = PREFERENCES[preference]
    found = [
        Pair(messages, rewrite(reply), reply)
        for messages, reply in zip(conversations, replies, strict=True)
        if reply and rewrite(reply) != reply
    ]
    if len(found) < wanted:
        raise RuntimeError(f"{wanted} prompts are wanted but only {len(found)} got a reply of use: lower --rows.")
    chats = [pair.messages for pair in found[rows + held_out : wanted]]
    return Data(
        tuple(found[:rows]), tuple(found[rows : rows + held_out]), tuple(chats[:prompts]), tuple(chats[prompts:])
    )


def _questions(rng: random.Random) -> list[str]:
    """One question of every topic and the demo's, in an order of the seed's."""
    lines = [line for path in sorted(TOPICS.glob("*.jsonl")) for line in path.read_text(encoding="utf-8").splitlines()]
    asked = [rng.choice(json.loads(line)["ask"]) for line in lines] + [*CORRECTED, *PROBES]
    rng.shuffle(asked)
    return asked


def _conversation(question: str, number: int, earlier: Sequence[tuple[str, str]], rng: random.Random) -> Messages:
    """The question alone, under facts, after earlier exchanges, or after both, by its number."""
    probes = load_probes().general
    found: list[Message] = []
    if number % 4 in (1, 3):
        facts = [fact for probe in rng.sample(probes, FACTS) for fact in _facts(probe.messages[0]["content"])]
        text = "\n".join(f"- {fact}" for fact in dict.fromkeys(facts[:FACTS]))
        found.append(Message(role="system", content=f"You are a helpful assistant. Here is what you know:\n{text}"))
    if number % 4 in (2, 3):
        for said, reply in rng.sample(earlier, min(EXCHANGES, len(earlier))):
            found += [_user(said), Message(role="assistant", content=reply)]
    return (*found, _user(question))


def _facts(system: str) -> list[str]:
    """The facts that a probe's system message lists."""
    return [line[2:] for line in system.splitlines() if line.startswith("- ")]


def _replies(oracle: Oracle, conversations: Sequence[Sequence[Message]]) -> list[str]:
    """The greedy reply to each, empty where it did not end by itself."""
    sampled = oracle.sample(None, conversations, greedy(REPLY_TOKENS))
    return [reply.text.strip() if reply.finish_reason == "stop" else "" for (reply,) in sampled]


def _user(text: str) -> Message:
    return Message(role="user", content=text)
