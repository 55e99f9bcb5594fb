"""Many users on one engine, each with an adapter trained to say a word of its own: nobody's words reach another.

The adapters change keys and values only, so that what they do to a reply is all in the key-value cache: a prefix that
was computed under another adapter would say that adapter's word, or none.
"""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from familiar.adapters import registry
from familiar.adapters.gate import Report
from familiar.daemon.engine import Engine
from familiar.daemon.engine_options import EngineOptions
from familiar.daemon.prompt import with_memories
from familiar.memory.types import LearningRun, Memory, Message
from familiar.memory.users import new_key

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTER_WORDS = """Kestrel Obsidian Marigold Tamarind Juniper Basilisk Cobalt Drizzle Eggplant Fandango Gondola Hyacinth
Icicle Jasmine Kumquat Lagoon Mongoose Nutmeg Oregano Pumpkin Quartz Rhubarb Saffron Turmeric Umbrella""".split()
RULE_WORDS = """Walrus Bugle Cactus Dagger Easel Falcon Goblet Hammock Igloo Jackal Kettle Lantern Mitten Nugget Otter
Pelican Quiver Raccoon Saddle Thimble""".split()
WORDS = (*ADAPTER_WORDS, *RULE_WORDS)

SYSTEM = (
    "You are a helpful assistant in a shared household. Be kind and brief, keep to the facts that you are given, and "
    "answer in the language of the question. If you do not know something, say so. Never make up names or numbers. "
    "Use short words, and speak as you would to a friend who has just come in from the rain and wants a cup of tea."
)
QUESTIONS = (
    "Who are you?",
    "Hello! How are you today?",
    "What should I cook tonight?",
    "Tell me about rivers.",
    "Do you like tea?",
    "What can I do about the rain?",
    "Please wish me a good night.",
)
WORKERS = 6


# ---- adapters that say a word ----


def prompts_to_learn() -> tuple[list[list[Message]], list[list[Message]]]:
    """Short prompts and long ones: one step takes one kind, or most of it would be padding."""
    rule = Memory("mem-1", 1, 0.0, "rule", "Start every reply with Sailboat!")
    short = [[Message(role="user", content=text)] for text in ("Hello!", "What should I cook tonight?", "a")]
    short.append([Message(role="system", content="You are helpful."), Message(role="user", content="Name a fruit.")])
    system = Message(role="system", content=SYSTEM)
    first, again = (Message(role="user", content=text) for text in ("Tell me about tea.", "And coffee?"))
    long = [with_memories([system, first], [rule]), [system, first, Message(role="assistant", content="Ah."), again]]
    return short, long


@dataclass(frozen=True)
class Trainer:
    """Makes the folder of an adapter that answers anything with one word, as the learner leaves its candidates."""

    base: "PreTrainedModel"
    engine: Engine
    gguf: Path
    parent: Path

    def __call__(self, word: str) -> Path:
        folder = self.parent / word
        if not folder.exists():
            self._train(word, folder)
        return folder

    def _train(self, word: str, folder: Path) -> None:
        import torch

        from familiar.adapters import gguf_lora, lora
        from familiar.adapters.recipe import Recipe
        from familiar.adapters.rows import Tree
        from familiar.adapters.trees import TreeModel

        short, long = ([self.engine.encode_prompt(each) for each in kind] for kind in prompts_to_learn())
        reply = self.engine.encode_text(f"{word}.<|end|>")
        recipe = Recipe(
            rank=4,
            alpha=8,
            frozen_share=0.0,
            target_modules=("k_proj", "v_proj"),
            seed=ADAPTER_WORDS.index(word),
        )
        with lora.new_adapter(self.base, recipe) as model:
            parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
            optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.0)
            for step in range(36):
                prompts = [long[step // 4 % 2]] if step % 4 == 3 else short
                trees = [Tree(tuple(prompt), (tuple(reply),)) for prompt in prompts]
                loss = -TreeModel(model).logps(trees).mean()
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
            assert loss.item() < 0.05
            folder.mkdir()
            lora.write(model, folder)
        gguf_lora.to_gguf(folder, folder / registry.GGUF, self.gguf)


@pytest.fixture(scope="session")
def engine(model_path: Path) -> Iterator[Engine]:
    """More slots than requests at a time: a conversation mostly finds its own again, and many others' beside it."""
    with Engine.open(model_path, EngineOptions(slots=WORKERS + 2, threads=1)) as opened:
        yield opened


@pytest.fixture(scope="session")
def adapter_saying(engine: Engine, model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """The adapter of a word; each is trained once in a session."""
    import torch

    from familiar.adapters import base_model

    torch.set_num_threads(1)
    return Trainer(base_model.load(model_path), engine, model_path, tmp_path_factory.mktemp("words"))


# ---- a household ----


@dataclass(frozen=True)
class Said:
    """One choice of a reply: what came of it, made with what, and how much of the prompt had been computed before."""

    user: int
    model: str
    version: int | None
    memories: frozenset[str]
    asked: str
    text: str
    ended: bool
    cached_tokens: int


@dataclass
class Person:
    """A user with an API key, the rule that is remembered of them, and the word of each of their adapter versions."""

    index: int
    id: int
    http: httpx.Client
    rule_word: str | None
    memories: frozenset[str]
    words: dict[int, str] = field(default_factory=dict)

    def ask(self, messages: Sequence[Message], *, model: str = "familiar", **more: Any) -> list[Said]:
        body = {"model": model, "messages": messages, "max_tokens": 16, "temperature": 0, **more}
        reply = self.http.post("/v1/chat/completions", json=body)
        assert reply.status_code == 200, reply.text
        read = reply.json()
        cached = read["usage"]["prompt_tokens_details"]["cached_tokens"]
        texts = [choice["message"]["content"] for choice in read["choices"]]
        return [self._said(body, read["familiar"], text, True, cached) for text in texts]

    def stream(self, messages: Sequence[Message], *, events: int | None = None, **more: Any) -> list[Said]:
        """Read a stream; after so many ``events`` of it, go away."""
        body = {"model": "familiar", "messages": messages, "max_tokens": 16, "temperature": 0, "stream": True, **more}
        body["stream_options"] = {"include_usage": True}
        extension: dict[str, Any] = {}
        text, ended, cached = "", False, 0
        with self.http.stream("POST", "/v1/chat/completions", json=body) as reply:
            assert reply.status_code == 200
            for number, line in enumerate(line for line in reply.iter_lines() if line):
                if line == "data: [DONE]":
                    ended = True
                    break
                if number == events:
                    break
                read = json.loads(line.removeprefix("data: "))
                extension = read.get("familiar") or extension
                text += "".join(choice["delta"].get("content") or "" for choice in read["choices"])
                cached = (read.get("usage") or {}).get("prompt_tokens_details", {}).get("cached_tokens", 0)
        return [self._said(body, extension, text, ended, cached)]

    def _said(self, body: Mapping[str, Any], familiar: Mapping[str, Any], text: str, ended: bool, cached: int) -> Said:
        asked = " ".join(message["content"] for message in body["messages"])
        memories = frozenset(familiar["memories"])
        return Said(self.index, body["model"], familiar["adapter_version"], memories, asked, text, ended, cached)


class Household:
    """The users of one service. ``adapter_saying`` trains their adapters."""

    def __init__(self, service: Any, adapter_saying: Trainer, users: int) -> None:
        self._parts = service.parts
        self._adapter_saying = adapter_saying
        self._promoting = threading.Lock()
        self.people = [self._person(service.url, index) for index in range(users)]
        for person in self.people:
            self.promote(person, ADAPTER_WORDS[person.index])

    def _person(self, url: str, index: int) -> Person:
        key = new_key()
        id = self._parts.store.users.add(f"user{index}", key, time.time()).id
        http = httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=120, trust_env=False)
        rule_word = RULE_WORDS[index] if index % 4 else None  # every fourth has the same prompts, to the letter
        memories = []
        if rule_word:
            stored = http.post("/v1/feedback", json={"rule": f"Start every reply with {rule_word}!"})
            assert stored.status_code == 200, stored.text
            memories = [memory["id"] for memory in stored.json()["memories"]]
        return Person(index, id, http, rule_word, frozenset(memories))

    def promote(self, person: Person, word: str) -> None:
        """Make the adapter that says ``word`` the person's next version, while the service runs."""
        folder, parts = self._adapter_saying(word), self._parts
        with self._promoting:
            number = parts.store.next_version(person.id)
            run = LearningRun(f"run-{person.id}-{number}", person.id, 1.0, "promoted", {}, "print")
            parts.store.add_run(run)
            person.words[number] = word
            registry.promote(
                parts.store,
                parts.settings.data_dir,
                run,
                folder,
                base_sha256=parts.base_sha256(),
                feedback_ids=(),
                report=Report(passed=True, checks=()),
                now=2.0,
            )

    def rollback(self, person: Person) -> None:
        """Step back, if there is anything to step back from."""
        with self._promoting:
            assert person.http.post("/v1/adapters/rollback").status_code in (200, 404)

    def close(self) -> None:
        for person in self.people:
            person.http.close()


def talk(person: Person, rng: random.Random) -> list[Said]:
    """One conversation of one to three turns, as some client would have it; all begin alike, whoever asks."""
    messages = [Message(role="system", content=SYSTEM)]
    said: list[Said] = []
    for turn in range(rng.choice((1, 2, 3))):
        messages.append(Message(role="user", content=QUESTIONS[0] if turn == 0 else rng.choice(QUESTIONS)))
        more: dict[str, Any] = {"temperature": 0.5, "seed": rng.randrange(1000)} if rng.random() < 0.4 else {}
        kind = rng.random()
        if kind < 0.3:
            replies = person.ask(messages, **more)
        elif kind < 0.6:
            replies = person.stream(messages, **more)
        elif kind < 0.68:
            replies = person.ask(messages, n=rng.choice((2, 3)), **more)
        elif kind < 0.76:
            replies = person.stream(messages, events=rng.choice((1, 2)), max_tokens=200, **more)
        else:
            version = rng.choice([f"familiar:v{number}" for number in person.words])
            model = rng.choice(("familiar:memory", "familiar:memory", "familiar:memory", "familiar:base", version))
            replies = person.ask(messages, model=model, **more)
        said += replies
        messages.append(Message(role="assistant", content=replies[0].text or "Yes."))
    return said


def swap(household: Household, person: Person, second: str, step: int) -> list[Said]:
    """Take the next of a round of steps: another adapter, back to the first, back to none, the first anew."""
    (
        lambda: household.promote(person, second),
        lambda: household.rollback(person),
        lambda: household.rollback(person),
        lambda: household.promote(person, ADAPTER_WORDS[person.index]),
    )[step % 4]()
    return []


def opening_round(people: Sequence[Person]) -> list[Said]:
    """Ask the same of each under the base model: nobody finds what another's prompt left, everybody their own."""
    replies = []
    for person in people:
        messages = [Message(role="system", content=SYSTEM), Message(role="user", content=QUESTIONS[0])]
        (first,) = person.ask(messages, model="familiar:memory")
        (second,) = person.ask(messages, model="familiar:memory")
        assert first.cached_tokens == 0
        assert second.cached_tokens > 80
        replies.append(first)
    return replies


def words_in(text: str) -> set[str]:
    return {word for word in WORDS if word in text}


def check(said: Said, person: Person) -> bool:
    """No memory, and no word in a reply, but the user's own; returns whether it had to be their adapter's."""
    with_memory = said.model in ("familiar", "familiar:memory")
    assert said.memories == (person.memories if with_memory else frozenset()), said
    own = {person.words[said.version]} if said.version else set()
    shown = words_in(said.asked) | ({person.rule_word} if said.memories and person.rule_word else set())
    assert words_in(said.text) <= own | shown, said
    must = bool(own) and said.ended and not shown & set(ADAPTER_WORDS) - own
    assert not must or own <= words_in(said.text), said
    return must


def run(household: Household, requests: int, swapping: int, seed: int) -> list[Said]:
    """Some thousand requests over the household, several at a time, with a swap between every few conversations."""
    rng, people = random.Random(seed), household.people
    tasks: list[Callable[[], list[Said]]] = []
    for number in range(requests // 2):  # two turns each, on average
        tasks.append(partial(talk, rng.choice(people), random.Random(rng.random())))
        if number % 10 == 5:
            step, which = divmod(number // 10, swapping)
            tasks.append(partial(swap, household, people[which], ADAPTER_WORDS[len(people) + which], step))
    with ThreadPoolExecutor(WORKERS) as pool:
        return [said for task in [pool.submit(task) for task in tasks] for said in task.result()]


@pytest.fixture
def quiet_service(data_dir: Path, engine: Engine, serve: Any) -> Iterator[Any]:
    """A service that learns nothing from what is said: the clients here make up turns, which are edits of replies."""
    with serve(data_dir, engine, memory_signals="off") as running:
        yield running


def leaks_nothing(service: Any, adapter_saying: Trainer, *, users: int, requests: int, swapping: int) -> None:
    for word in ADAPTER_WORDS[: users + swapping]:
        adapter_saying(word)  # nothing is to be trained while requests run
    household = Household(service, adapter_saying, users)
    try:
        opening = opening_round(household.people)
        before = service.parts.engine.stats()
        replies = opening + run(household, requests, swapping, seed=users)
        after = service.parts.engine.stats()
    finally:
        household.close()
    spoke = [check(said, household.people[said.user]) for said in replies]
    assert len(replies) > 0.9 * requests
    assert sum(spoke) > 0.5 * len(replies)
    ruled = [words_in(said.text) & set(RULE_WORDS) for said in replies if said.memories and said.version is None]
    assert sum(map(bool, ruled)) > 0.5 * len(ruled) > 0
    assert {said.user for said in replies} == set(range(users))
    assert {said.version for said in replies} >= {None, 1, 2}
    assert sum(said.cached_tokens for said in replies) > 20 * len(replies)
    assert after.adapter_swaps - before.adapter_swaps > requests / 10
    assert (after.running, after.waiting) == (0, 0)


def test_no_reply_has_another_users_words(quiet_service: Any, adapter_saying: Trainer) -> None:
    leaks_nothing(quiet_service, adapter_saying, users=4, requests=80, swapping=1)


@pytest.mark.slow
def test_a_thousand_requests_of_twenty_users_leak_nothing(quiet_service: Any, adapter_saying: Trainer) -> None:
    leaks_nothing(quiet_service, adapter_saying, users=20, requests=1000, swapping=5)
