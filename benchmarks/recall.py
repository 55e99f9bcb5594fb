"""Measure recall: whether what was said is found when it applies, left alone when it does not, and how fast.

``python benchmarks/recall.py --data FOLDER`` stores each set's memories as one user's and asks each request through the
recall that the service uses, with one configuration for all sets: by words and meaning, by words alone, and by meaning
alone. A request's recall@k is the share of the memories that belong to it among the first k; a set's is the mean.
Wrong injection is the share of requests to which nothing applies that would be shown a memory all the same.

The folder holds ``prefeval_preferences.json``, ``counterfact_1k.json`` and ``locomo_conversations_1-5.json``, public
sets that are not ours to ship; what is not there is left out. Latency is that of the whole recall but for the
request's embedding, whose time is a figure of its own, over made-up memories whose vectors lie about real ones. What
is left out: whether the model does what the memory says (``following.py``).
"""

import argparse
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from common import ROOT, Report, arguments, progress
from recall_sets import Case, RecallSet, Said, load

from familiar.daemon import sentence_model, settings
from familiar.daemon.embedder import Embedder, embedder_name
from familiar.daemon.llama import Model
from familiar.memory import meaning, recall, rows, shared_words
from familiar.memory.meaning import Vectors
from familiar.memory.recall import Recaller, is_relevant
from familiar.memory.store import Store
from familiar.memory.types import Memory, Message

DEPTHS = (1, 5, 10)
SIZES = (1_000, 10_000, 100_000)
TARGETS = {
    "preferences.recall@5": 35,
    "conversations.recall@5": 56,
    "conversations.recall@10": 66,
    "facts.recall@5": 98,
}
BUDGET_TOKENS = 256


class CachedEmbed:
    """The sentence model, which computes each text once: requests are asked in several configurations."""

    def __init__(self, path: Path, threads: int) -> None:
        self._embedder = Embedder(Model(path), threads=threads)
        self._known: dict[str, Vectors] = {}
        self.name = embedder_name(path)
        self.seconds: list[float] = []

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """The vectors of the texts, shape (texts, dimensions)."""
        for text in texts:
            if text not in self._known:
                started = time.perf_counter()
                self._known[text] = self._embedder.evaluate([self._embedder.tokenise(text, cut=True)])[0]
                self.seconds.append(time.perf_counter() - started)
        return np.stack([self._known[text] for text in texts])

    def put(self, text: str, vector: Vectors) -> None:
        """Say what a made-up text's vector is."""
        self._known[text] = vector


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER", help="the public sets' files; ../shared/data/recall if there"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--embedding-model", type=Path, metavar="GGUF", help="instead of the default sentence model")
    given = parser.parse_args()
    usual = ROOT.parent / "shared" / "data" / "recall"
    data = given.data or (usual if usual.is_dir() else None)
    path = given.embedding_model or sentence_model.resolve(settings.load({}), progress)
    report = Report()
    embed = CachedEmbed(path, given.threads) if path else None
    measure_sets(report, embed, [_shortened(each) if given.quick else each for each in load(data)])
    if embed is not None:
        report.add("embedding.p50_ms", 1000 * float(np.percentile(embed.seconds, 50)))
        report.add("embedding.p99_ms", 1000 * float(np.percentile(embed.seconds, 99)))
        for size in SIZES[:2] if given.quick else SIZES:
            measure_latency(report, embed, size)
    judge(report)
    report.finish(given.json)


def measure_sets(report: Report, embed: CachedEmbed | None, sets: Sequence[RecallSet]) -> None:
    """Recall and wrong injection of each set in each configuration."""
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "familiar.db") as store:
        users = [store.users.add(f"user{number}", f"fam-{number}", 0).id for number in range(len(sets))]
        for user, each in zip(users, sets, strict=True):
            put(store, user, each.memories)
        for name, recaller, words in _configurations(store, embed):
            for user in users:
                recaller.prepare(user)
            found: dict[str, list[list[float]]] = defaultdict(list)
            injected: dict[str, list[bool]] = defaultdict(list)
            for user, each in zip(users, sets, strict=True):
                with words():
                    found[each.name] += [_found(recaller, user, case) for case in each.cases]
                    injected[each.name] += [_injects(recaller, user, request) for request in each.unrelated]
            for set_name, shares in found.items():
                for depth, share in zip((*DEPTHS, "shown"), np.mean(shares, axis=0), strict=True):
                    report.add(f"{name}.{set_name}.recall@{depth}", 100 * float(share))
                if injected[set_name]:
                    report.add(f"{name}.{set_name}.wrong_injection", 100 * float(np.mean(injected[set_name])))


def _configurations(
    store: Store, embed: CachedEmbed | None
) -> Iterator[tuple[str, Recaller, Callable[[], "contextmanager[None]"]]]:
    both = Recaller(store, embed)
    if embed is not None:
        yield "both", both, _as_it_is
        yield "meaning", both, _without_words
    yield "words", Recaller(store), _as_it_is


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


@contextmanager
def _without_words() -> Iterator[None]:
    usual = shared_words.ROWS
    shared_words.ROWS = -1
    try:
        yield
    finally:
        shared_words.ROWS = usual


def _found(recaller: Recaller, user: int, case: Case) -> list[float]:
    """The share of what is wanted among the first of each depth, and among what would be shown."""
    ranked = recaller.rank(user, case.request, recaller.request_vector(user, case.request), max(DEPTHS))
    places = [_place(each.memory) for each in ranked]
    shown = [_place(each.memory) for each in ranked[: recall.MAX_RELATED] if is_relevant(each)]
    parts = [*(places[:depth] for depth in DEPTHS), shown]
    return [len(case.wanted.intersection(part)) / len(case.wanted) for part in parts]


def _injects(recaller: Recaller, user: int, request: str) -> bool:
    return any(is_relevant(each) for each in recaller.search(user, request, limit=1))


def measure_latency(report: Report, embed: CachedEmbed, size: int) -> None:
    """The time of one recall among ``size`` memories, and of the first one after a new memory, in ms.

    ``processor`` is the time for which it has a core: on a busy machine it waits as long again, or longer.
    """
    rng, drawn = random.Random(size), np.random.default_rng(size)
    requests = meaning.everyday_requests()
    texts = meaning.background_texts()
    real = embed(texts)
    with (
        tempfile.TemporaryDirectory() as folder,
        Store.open(Path(folder) / "familiar.db", max_memories=2 * size) as store,
    ):
        user = store.default_user()
        said = []
        for number in range(size):
            first, second = rng.randrange(len(texts)), rng.randrange(len(texts))
            words = [*texts[first].split(), *texts[second].split()]
            rng.shuffle(words)
            text = f"{number} {' '.join(words[: rng.randrange(6, 24)])}"
            said.append(Said(text))
            vector = real[first] + real[second] + drawn.normal(size=real.shape[1]).astype(np.float32) / 20
            embed.put(text, vector / np.linalg.norm(vector))
        put(store, user, said)
        recaller = Recaller(store, embed)
        while recaller.prepare(user, limit=4096):
            progress(f"  {size} memories: embedding")

        def once(request: str) -> tuple[float, float]:
            messages = (Message(role="user", content=request),)
            started, computed = time.perf_counter(), time.thread_time()
            recaller.recall(
                user, messages, budget_tokens=BUDGET_TOKENS, count_tokens=lambda memory: len(memory.text) // 4
            )
            return 1000 * (time.perf_counter() - started), 1000 * (time.thread_time() - computed)

        once(requests[0])
        times, processor = zip(*map(once, requests), strict=True)
        report.add(f"latency.{size}.p50_ms", float(np.percentile(times, 50)))
        report.add(f"latency.{size}.p99_ms", float(np.percentile(times, 99)))
        report.add(f"latency.{size}.processor_p99_ms", float(np.percentile(processor, 99)))
        after = []
        for number, request in enumerate(requests[:40]):
            text = f"new {number} {request}"
            embed.put(text, real[number])
            store.put_memory(
                Memory(f"mem-new-{number}", user, 1e9 + number, "fact", text, scope="related"), 1e9 + number
            )
            after.append(once(request)[0])
        report.add(f"latency.{size}.after_a_new_memory_p50_ms", float(np.percentile(after, 50)))


def judge(report: Report) -> None:
    """Compare with the targets, all for the one configuration that the service uses."""
    value = report.figures.get
    for name, bound in TARGETS.items():
        report.at_least(name, _number(value(f"both.{name}")), bound)
    for name in ("corrections", "direct", "facts"):
        report.at_most(f"{name}.wrong_injection", _number(value(f"both.{name}.wrong_injection")), 5)
    report.at_most("latency.100000.p99_ms", _number(value("latency.100000.p99_ms")), 10)


def put(store: Store, user: int, memories: Iterable[Said]) -> None:
    """Store the memories in order, at once: their ids end with their places."""
    with store.connection.write(durable=False) as transaction:
        places: set[str] = set()
        for place, said in enumerate(memories):
            conversation = None if said.place is None else f"conv-{user}-{said.place}"
            if conversation and conversation not in places:
                places.add(conversation)
                transaction.execute(
                    "INSERT INTO conversations (id, user_id, created_at_s) VALUES (?, ?, 0)", (conversation, user)
                )
            memory = Memory(
                f"mem-{user}-{place}",
                user,
                float(place),
                said.kind,
                said.text,
                said.prompt,
                scope="related",
                conversation_id=conversation,
            )
            transaction.execute(
                "INSERT INTO memories (id, user_id, created_at_s, kind, text, prompt, scope, conversation_id, pinned,"
                " source, state, uses, content_sha256) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 'import', 'active', 0, ?)",
                (
                    memory.id,
                    user,
                    memory.created_at,
                    memory.kind,
                    memory.text,
                    memory.prompt,
                    memory.scope,
                    memory.conversation_id,
                    f"{place}-{rows.content_sha256(memory)}",
                ),
            )


def _place(memory: Memory) -> int:
    return int(memory.id.rpartition("-")[2])


def _shortened(each: RecallSet) -> RecallSet:
    return RecallSet(each.name, each.memories, each.cases[::10], each.unrelated[::10])


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, argparse.ArgumentError) as error:
        sys.exit(f"recall.py: {error}")
