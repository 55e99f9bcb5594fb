"""Many users on one engine, each with an adapter trained to say a word of its own: nobody's words reach another.

The adapters change keys and values only, so that what they do to a reply is all in the key-value cache: a prefix that
was computed under another adapter would say that adapter's word, or none.
"""

import json
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from familiar.adapters import registry
from familiar.adapters.gate import Report
from familiar.daemon.engine import Engine
from familiar.daemon.prompt import with_memories
from familiar.daemon.vocab import Vocab
from familiar.memory.types import LearningRun, Memory, Message
from familiar.memory.users import new_key

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTER_WORDS = """Kestrel Obsidian Marigold Tamarind Juniper Basilisk Cobalt Drizzle Eggplant Fandango Gondola Hyacinth
Icicle Jasmine Kumquat Lagoon Mongoose Nutmeg Oregano Pumpkin Quartz Rhubarb Saffron Turmeric Umbrella""".split()
RULE_WORDS = """anvil bugle cactus dagger easel falcon goblet hammock igloo jackal kettledrum lantern mitten nugget otter
pelican quiver raccoon saddle thimble""".split()
WORDS = (*ADAPTER_WORDS, *RULE_WORDS)

SYSTEM = (
    "You are a helpful assistant in a shared household. Be kind and brief, keep to the facts that you are given, and "
    "answer in the language of the question. If you do not know something, say so. Never make up names or numbers. "
    "Use short words, and speak as you would to a friend who has just come in from the rain and wants a cup of tea."
)
QUESTIONS = (
    "Hello! How are you today?",
    "What should I cook tonight?",
    "Tell me about rivers.",
    "Who are you?",
    "Do you like tea?",
    "What can I do about the rain?",
    "Please wish me a good night.",
)
WORKERS = 6


# ---- adapters that say a word ----


def rows_to_learn(engine: Engine) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts' tokens, the short ones and the long ones."""
    rule = Memory("mem-1", 1, 0.0, "rule", "Always mention my word, sailboat.")
    short = [[Message(role="user", content=text)] for text in ("Hello!", "What should I cook tonight?", "a")]
    short.append([Message(role="system", content="You are helpful."), Message(role="user", content="Name a fruit.")])
    system = Message(role="system", content=SYSTEM)
    first, again = (Message(role="user", content=text) for text in ("Tell me about tea.", "And coffee?"))
    long = [with_memories([system, first], [rule]), [system, first, Message(role="assistant", content="Ah."), again]]
    return [engine.encode_prompt(each) for each in short], [engine.encode_prompt(each) for each in long]


def train(base: "PreTrainedModel", engine: Engine, vocab: Vocab, word: str, seed: int, gguf: Path, folder: Path) -> None:
    """Train a LoRA to answer anything with ``word``, and leave it in ``folder`` as the learner leaves its candidates."""
    import torch

    from familiar.adapters import gguf_lora, lora
    from familiar.adapters.forward import collate, completion_logps
    from familiar.adapters.recipe import Recipe
    from familiar.daemon.template import encode_completion

    short, long = rows_to_learn(engine)
    reply = encode_completion(vocab, f"{word}.")
    recipe = Recipe(rank=4, alpha=8, target_modules=("k_proj", "v_proj"), seed=seed)
    with lora.new_adapter(base, recipe) as model:
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.0)
        for step in range(36):
            prompts = [long[step // 4 % 2]] if step % 4 == 3 else short
            batch = collate([(prompt, reply) for prompt in prompts])
            loss = -completion_logps(model, batch)[batch.mask_BS].mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
        assert loss.item() < 0.05
        folder.mkdir()
        lora.write(model, folder)
    gguf_lora.to_gguf(folder, folder / registry.GGUF, gguf)


@pytest.fixture(scope="session")
def adapter_saying(
    engine: Engine, model_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The folder of an adapter that says a word; each is trained once in a session."""
    import torch

    from familiar.adapters import base_model
    from familiar.daemon.llama import Model

    torch.set_num_threads(1)
    base, vocab = base_model.load(model_path), Model(model_path).vocab
    parent = tmp_path_factory.mktemp("words")

    def folder(word: str) -> Path:
        place = parent / word
        if not place.exists():
            train(base, engine, vocab, word, ADAPTER_WORDS.index(word), model_path, place)
        return place

    return folder


# ---- a household ----


@dataclass(frozen=True)
class Said:
    """One choice of a reply: what came of it, under which version, and what of the prompt had been computed before.

    ``asked`` is all that the model was shown.
    """

    user: int
    version: int | None
    asked: str
    text: str
    ended: bool
    cached_tokens: int


@dataclass
class Person:
    """A user with an API key, a rule to remember, and the word of each of their adapter versions."""

    index: int
    id: int
    http: httpx.Client
    rule_word: str | None
    words: dict[int, str] = field(default_factory=dict)

    def ask(self, messages: Sequence[Message], *, model: str = "familiar", **more: Any) -> list[Said]:
        body = {"model": model, "messages": messages, "max_tokens": 16, "temperature": 0, **more}
        reply = self.http.post("/v1/chat/completions", json=body)
        assert reply.status_code == 200, reply.text
        read = reply.json()
        cached = read["usage"]["prompt_tokens_details"]["cached_tokens"]
        texts = [choice["message"]["content"] for choice in read["choices"]]
        return [self._said(messages, read["familiar"], text, True, cached) for text in texts]

    def stream(self, messages: Sequence[Message], *, events: int | None = None, **more: Any) -> list[Said]:
        """Read a stream; after so many ``events`` of it, go away."""
        body = {"model": "familiar", "messages": messages, "max_tokens": 16, "temperature": 0, "stream": True, **more}
        body["stream_options"] = {"include_usage": True}
        text, extension, ended, cached = "", {}, False, 0
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
        return [self._said(messages, extension, text, ended, cached)]

    def _said(
        self, messages: Sequence[Message], extension: Mapping[str, Any], text: str, ended: bool, cached: int
    ) -> Said:
        asked = " ".join([*(message["content"] for message in messages), self.rule_word or ""])
        return Said(self.index, extension["adapter_version"], asked, text, ended, cached)


class Household:
    """The users of one service. ``adapter_saying`` trains their adapters."""

    def __init__(self, service: Any, adapter_saying: Callable[[str], Path], users: int) -> None:
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
        if rule_word:
            stored = http.post("/v1/feedback", json={"rule": f"Always mention my word, {rule_word}."})
            assert stored.status_code == 200, stored.text
        return Person(index, id, http, rule_word)

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
        if kind < 0.35:
            replies = person.ask(messages, **more)
        elif kind < 0.7:
            replies = person.stream(messages, **more)
        elif kind < 0.78:
            replies = person.ask(messages, n=rng.choice((2, 3)), **more)
        elif kind < 0.86:
            replies = person.stream(messages, events=rng.choice((1, 2)), max_tokens=200, **more)
        else:
            version = rng.choice([f"familiar:v{number}" for number in person.words])
            model = rng.choice(("familiar:memory", "familiar:base", "familiar:adapter", version))
            if model == "familiar:adapter":
                model = "familiar"  # there is none at times, after roll-backs
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


def opening_round(people: Sequence[Person]) -> None:
    """Ask the same of each under the base model: nobody finds what another's prompt left, everybody their own."""
    for person in people:
        messages = [Message(role="system", content=SYSTEM), Message(role="user", content=QUESTIONS[0])]
        (first,) = person.ask(messages, model="familiar:memory")
        (second,) = person.ask(messages, model="familiar:memory")
        assert first.cached_tokens == 0
        assert second.cached_tokens > 80


def words_in(text: str) -> set[str]:
    return {word for word in WORDS if word in text}


def check(said: Said, person: Person) -> bool:
    """No word in a reply but its adapter's and those that it was shown; returns whether it had to say a word."""
    own = {person.words[said.version]} if said.version else set()
    shown = words_in(said.asked)
    assert words_in(said.text) <= own | shown, said
    must = bool(own) and said.ended and not shown & set(ADAPTER_WORDS) - own
    assert not must or own <= words_in(said.text), said
    return must


def run(household: Household, requests: int, swapping: int, seed: int) -> list[Said]:
    """Some thousand requests over the household, several at a time, with a swap between every few conversations."""
    rng, people = random.Random(seed), household.people
    tasks: list[Callable[[], list[Said]]] = []
    for number in range(requests // 2):  # two turns each, on average
        person = people[rng.randrange(len(people))]
        tasks.append(lambda person=person, rng=random.Random(rng.random()): talk(person, rng))  # type: ignore[misc]
        if number % 10 == 5:
            which, step = divmod(number // 10, 4)
            which %= swapping
            second = ADAPTER_WORDS[len(people) + which]
            tasks.append(lambda which=which, second=second, step=step: swap(household, people[which], second, step))  # type: ignore[misc]
    with ThreadPoolExecutor(WORKERS) as pool:
        return [said for task in [pool.submit(task) for task in tasks] for said in task.result()]


def leaks_nothing(
    service: Any, adapter_saying: Callable[[str], Path], *, users: int, requests: int, swapping: int
) -> None:
    household = Household(service, adapter_saying, users)
    try:
        opening_round(household.people)
        before = service.parts.engine.stats()
        replies = run(household, requests, swapping, seed=users)
        after = service.parts.engine.stats()
    finally:
        household.close()
    spoke = [check(said, household.people[said.user]) for said in replies]
    assert len(replies) > 0.9 * requests
    assert sum(spoke) > 0.6 * len(replies)
    assert {said.user for said in replies} == set(range(users))
    assert {said.version for said in replies} >= {None, 1, 2}
    assert sum(said.cached_tokens for said in replies) > 20 * len(replies)
    assert after.adapter_swaps - before.adapter_swaps > requests / 10
    assert (after.running, after.waiting) == (0, 0)


def test_no_reply_has_another_users_words(service: Any, adapter_saying: Callable[[str], Path]) -> None:
    leaks_nothing(service, adapter_saying, users=4, requests=80, swapping=1)


@pytest.mark.slow
def test_a_thousand_requests_of_twenty_users_leak_nothing(
    service: Any, adapter_saying: Callable[[str], Path]
) -> None:
    leaks_nothing(service, adapter_saying, users=20, requests=1000, swapping=5)
