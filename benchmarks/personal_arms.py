"""The product that ``personal.py`` measures, put together without its HTTP: store, recall, prompt, replies, learning.

Everything is what the service and the learner use, on a store file and a data folder of one person's own. The models
are loaded once for all people, and what the base model says to a prompt is computed once (``Remembering``), since each
learning run asks it the same.
"""

import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from personal_users import Wish, corrected

from familiar.adapters import checkpoints, gguf_lora, registry
from familiar.adapters.gate import Budgets
from familiar.adapters.probes import Question, load_probes
from familiar.adapters.protocols import Completion, Draw, ProgressCallback, greedy, silent
from familiar.daemon import learner_plan, learner_steps, settings, training_model
from familiar.daemon.learner_plan import Plan
from familiar.daemon.learner_steps import Models, Phases, Task
from familiar.daemon.oracle import Oracle
from familiar.daemon.prompt import line_counter, with_memories
from familiar.daemon.scorer import LlamaScorer
from familiar.feedback import signals
from familiar.feedback.pairs import Example
from familiar.feedback.signals import Origin, Signal
from familiar.memory import types
from familiar.memory.errors import NotEnoughSignals
from familiar.memory.meaning import Embed
from familiar.memory.recall import NOTHING, Recalled, Recaller
from familiar.memory.store import Store
from familiar.memory.types import Exchange, LearningRun, Message, StoredGrader

Arm = Literal["base", "memory", "adapter", "both"]
ARMS: tuple[Arm, ...] = ("base", "memory", "adapter", "both")
MAX_TOKENS = 120
NOTED = 3
"""Every so many-th correction says the rule as well."""
RATED_SHARE = 0.3
"""How many of the replies that are as wanted are rated good."""
MINUTE_S, BEGINNING_S = 60.0, 1.8e9
ASKS_NOTHING = "Hello."


class RememberingScorer(LlamaScorer):
    """Scores, and generates, without an adapter only once."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._known: dict[str, Any] = {}

    def logps(self, adapter: Path | None, messages: Sequence[Message], completion: str) -> list[float]:
        """As ``LlamaScorer`` has it."""
        if adapter is not None:
            return super().logps(adapter, messages, completion)
        key = repr(("logps", messages, completion))
        if key not in self._known:
            self._known[key] = super().logps(None, messages, completion)
        return list(self._known[key])

    def text_logps(self, adapter: Path | None, text: str) -> list[float]:
        """As ``LlamaScorer`` has it."""
        if adapter is not None:
            return super().text_logps(adapter, text)
        if text not in self._known:
            self._known[text] = super().text_logps(None, text)
        return list(self._known[text])

    def generate(self, adapter: Path | None, messages: Sequence[Message], max_tokens: int) -> str:
        """As ``LlamaScorer`` has it."""
        if adapter is not None:
            return super().generate(adapter, messages, max_tokens)
        key = repr(("generate", messages, max_tokens))
        if key not in self._known:
            self._known[key] = super().generate(None, messages, max_tokens)
        return str(self._known[key])


class Remembering(Oracle):
    """An oracle that draws the base model's greedy replies only once."""

    scorer_type = RememberingScorer

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self._known: dict[str, list[Completion]] = {}

    def sample(
        self, adapter: Path | None, prompts: Sequence[Sequence[Message]], how: Draw, progress: ProgressCallback = silent
    ) -> list[list[Completion]]:
        """As ``Sampler`` has it."""
        if adapter is not None or how != greedy(how.max_tokens):
            return super().sample(adapter, prompts, how, progress)
        keys = [repr((list(messages), how)) for messages in prompts]
        new = {key: messages for key, messages in zip(keys, prompts, strict=True) if key not in self._known}
        self._known.update(zip(new, super().sample(None, list(new.values()), how, progress), strict=True))
        return [self._known[key] for key in keys]


@dataclass(frozen=True)
class Learned:
    """What came of a learning run: whether the gate passed it, which checks it failed, what each phase took.

    ``rounds`` are the checkpoints of every epoch and round, as GGUF files; ``candidate`` is the one that was judged.
    """

    passed: bool
    failed: tuple[str, ...]
    seconds: Mapping[str, float]
    rounds: tuple[Path, ...] = ()
    candidate: Path | None = None


@dataclass
class Person:
    """Somebody with wishes, who tells the product of them, and what was said so far."""

    wishes: list[Wish]
    chance: random.Random
    corrections: int = 0
    since_new: int = 0
    """Corrections since the newest wish was had."""

    def wants(self, wishes: list[Wish]) -> None:
        """Want this from now on; the last of them is new."""
        self.wishes, self.since_new = wishes, 0

    def about(self, origin: Origin, exchange: Exchange) -> Signal | None:
        """What the person says of a reply, if anything."""
        text = corrected(exchange.completion, self.wishes)
        if text is None:
            as_wanted = all(wish.follows(exchange.completion) for wish in self.wishes)
            rated = as_wanted and self.chance.random() < RATED_SHARE
            return signals.rating(origin, exchange, 1) if rated else None
        self.corrections += 1
        self.since_new += 1
        says = self.wishes[-1].says
        note = says[(self.since_new // NOTED - 1) % len(says)] if self.since_new % NOTED == 0 else None
        return signals.correction(origin, exchange, text, note)


@dataclass
class Product:
    """What one person uses, on a store of their own. Close the store by leaving ``product``."""

    models: Models
    settings: settings.Settings
    store: Store
    recaller: Recaller
    user: int
    adapter: Path | None = None
    version: int | None = None
    exchanges: int = 0
    _lines: dict[str, int] = field(default_factory=dict)

    def replies(self, arm: Arm, prompts: Sequence[Sequence[Message]], max_tokens: int) -> list[Completion]:
        """Greedy replies, as they would be served now."""
        with_memory = arm in ("memory", "both")
        shown = [self.recall(messages, arm) if with_memory else NOTHING for messages in prompts]
        adapter = self.adapter if arm in ("adapter", "both") else None
        return self._drawn(adapter, prompts, shown, max_tokens)

    def adherence(self, arm: Arm, prompts: Sequence[str], wish: Wish) -> float:
        """The share of replies to ``prompts`` that are as ``wish`` has it."""
        return share([wish.follows(each.text) for each in self.replies(arm, asked(prompts), MAX_TOKENS)])

    def kept(self, arm: Arm, questions: Sequence[Question]) -> float:
        """Of the questions that the base model answers rightly, the share that is still answered so."""
        known = self._answered("base", questions)
        return share([right for right, knew in zip(self._answered(arm, questions), known, strict=True) if knew])

    def interact(self, person: Person, prompt: str, arm: Arm = "both") -> None:
        """One interaction: the reply of the product as it is, logged, and what the person says of it."""
        (messages,) = asked([prompt])
        recalled = self.recall(messages, arm) if arm in ("memory", "both") else NOTHING
        adapter = self.adapter if arm in ("adapter", "both") else None
        (reply,) = self._drawn(adapter, [messages], [recalled], MAX_TOKENS)
        exchange = self.log(messages, recalled, reply.text, reply.finish_reason, served=adapter is not None)
        if reply.finish_reason == "stop" and reply.text.strip():  # nobody corrects half a sentence
            signal = person.about(Origin(f"fb-{self.exchanges}", exchange.created_at), exchange)
            if signal is not None:
                self.store.add_feedback(signal.feedback, signal.memories)

    def log(
        self, messages: Sequence[Message], recalled: Recalled, reply: str, finish_reason: str, *, served: bool
    ) -> Exchange:
        """Store an interaction; ``served`` says whether the adapter answered."""
        self.exchanges += 1
        exchange = Exchange(
            id=f"chatcmpl-{self.exchanges}",
            user_id=self.user,
            created_at=BEGINNING_S + MINUTE_S * self.exchanges,
            model="familiar",
            messages=tuple(messages),
            completion=reply,
            adapter_version=self.version if served else None,
            used=recalled.used,
            finish_reason=finish_reason,
        )
        self.store.add_exchange(exchange)
        return exchange

    def chosen(self, arm: Arm, questions: Sequence[tuple[Sequence[Message], Sequence[str]]]) -> list[int]:
        """Of each question's beginnings of a reply, the number of the one that the question makes likelier most.

        That is the mean over its tokens of their log-probability, less that after a message that asks nothing: what the
        model says anyway says nothing about the question (Holtzman et al. 2021, "Surface form competition", domain
        conditional PMI).
        """
        adapter = self.adapter if arm in ("adapter", "both") else None
        told = []
        for messages, beginnings in questions:
            memories = self.recall(messages, arm).memories if arm in ("memory", "both") else ()
            told += [(with_memories(messages, memories), text) for text in beginnings]
        (nothing,) = asked([ASKS_NOTHING])
        asking = self._mean_logps(adapter, told)
        anyway = self._mean_logps(adapter, [(nothing, text) for _, text in told])
        gains = iter(after - before for after, before in zip(asking, anyway, strict=True))
        scores = [[next(gains) for _ in beginnings] for _, beginnings in questions]
        return [max(range(len(each)), key=each.__getitem__) for each in scores]

    def _mean_logps(self, adapter: Path | None, rows: Sequence[tuple[Sequence[Message], str]]) -> list[float]:
        """The mean log-probability of the tokens of each beginning of a reply."""
        oracle = self.models.oracle
        encoded = [(messages, oracle.encode(messages, text)[1][:-1]) for messages, text in rows]
        return [float(top.picked_T.mean()) for top in oracle.top_logps(adapter, encoded, 1)]

    def attach(self, wish: Wish) -> None:
        """Attach the wish's ready grader to the rules that state it, as ``familiar rule`` does."""
        for memory in self.store.memories(self.user, "rule"):
            if wish.grader is not None and memory.text in wish.says:
                id = f"grader-{memory.id}"
                name = str(wish.grader["name"])
                self.store.add_grader(StoredGrader(id, self.user, BEGINNING_S, name, wish.grader, memory.id))

    def plan(self, recipe: Mapping[str, Any]) -> Plan | None:
        """What there is to learn; None where it is too little yet."""
        try:
            return learner_plan.plan(self.settings, self.store, self.user, recipe)
        except NotEnoughSignals:
            return None

    def learn(self, planned: Plan, *, serve: bool) -> Learned:
        """Learn, and have the gate judge it. With ``serve``, what it passes is served from then on.

        Without, what is served stays as it is, and the checkpoints of the run are kept.
        """
        now = BEGINNING_S + MINUTE_S * self.exchanges
        run = LearningRun(
            f"run-{uuid4().hex}", self.user, now, "running", planned.recipe.to_dict(), planned.fingerprint
        )
        self.store.add_run(run)
        folder = self.settings.data_dir / "runs" / run.id
        phases = Phases(lambda event: None)
        task = Task(self.settings, self.store, run, planned, folder, phases, lambda: None)
        made = learner_steps.train_and_judge_with(self.models, task)
        version = made.version
        state: Literal["promoted", "rejected"] = "promoted" if version else "rejected"
        self.store.update_run(replace(run, state=state, ended_at=now, version=version.number if version else None))
        failed = tuple(check.name for check in made.report.checks if not check.ok)
        learned = Learned(made.report.passed, failed, phases.seconds)
        if serve:
            if version is not None:
                self.adapter, self.version = registry.verify(self.settings.data_dir, version), version.number
            shutil.rmtree(folder)
            return learned
        if version is not None:
            self.store.set_current(self.user, self.version)
        candidate = made.candidate / registry.GGUF
        rounds = []
        for number in range(1, 1 + len(list(folder.glob("epoch-*")))):
            each = checkpoints.epoch_folder(folder, number)
            rounds.append(each / registry.GGUF)
            if rounds[-1] != candidate:
                gguf_lora.to_gguf(each, rounds[-1], planned.base)
        return replace(learned, rounds=tuple(rounds), candidate=candidate)

    def kl(self, adapter: Path) -> float:
        """Nats per token that neutral replies are from the base model's, as the gate measures it."""
        rows, scorer = load_probes().neutral, self.models.oracle.scorer
        return sum(scorer.token_kl(adapter, row.messages, row.reply, row.reply) for row in rows) / len(rows)

    def _drawn(
        self, adapter: Path | None, prompts: Sequence[Sequence[Message]], shown: Sequence[Recalled], max_tokens: int
    ) -> list[Completion]:
        """Greedy replies under an adapter, with these memories in the prompts."""
        told = [with_memories(messages, each.memories) for messages, each in zip(prompts, shown, strict=True)]
        drawn = self.models.oracle.sample(adapter, told, greedy(max_tokens))
        return [reply for (reply,) in drawn]

    def recall(self, messages: Sequence[Message], arm: Arm) -> Recalled:
        served = self.version if arm == "both" else None
        return self.recaller.recall(
            self.user,
            messages,
            budget_tokens=self.settings.memory_budget_tokens,
            count_tokens=line_counter(self._tokens),
            carried=frozenset() if served is None else self.store.consolidated(self.user, served),
        )

    def _tokens(self, text: str) -> int:
        if text not in self._lines:
            self._lines[text] = len(self.models.oracle.scorer.model.vocab.tokenise(text))
        return self._lines[text]

    def _answered(self, arm: Arm, questions: Sequence[Question]) -> list[bool]:
        replies = self.replies(arm, [each.messages for each in questions], Budgets().answer_tokens)
        return [each.is_answered(reply.text) for each, reply in zip(questions, replies, strict=True)]


@contextmanager
def opened(path: Path, threads: int) -> Iterator[Models]:
    """A model file for many people in a row: as it is served, and to be trained once it is needed."""
    with Remembering.open(path, threads=threads) as oracle:
        loaded: list[Any] = []

        def load(judged: Sequence[Example]) -> Any:
            if not loaded:
                loaded.append(training_model.load(path, threads, oracle.scorer, judged))
            return loaded[0]

        yield Models(oracle, load)


@contextmanager
def product(models: Models, folder: Path, threads: int, embed: Embed | None) -> Iterator[Product]:
    """A fresh product in an empty ``folder``; memories are found by meaning where there is an embedder."""
    given = settings.load({"data_dir": folder, "threads": threads}, env={})
    with Store.open(given.database, lambda: BEGINNING_S) as store:
        yield Product(models, given, store, Recaller(store, embed), store.default_user())


def asked(prompts: Sequence[str]) -> list[tuple[Message, ...]]:
    """Prompts as conversations of one turn."""
    return [types.asked(text) for text in prompts]


def share(those: Sequence[bool]) -> float:
    """The share of those that are so; 1 of none."""
    return sum(those) / len(those) if those else 1.0
