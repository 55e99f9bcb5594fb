"""Which memories an adapter is found to follow untold, on the real model with an adapter that learned one of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from familiar.adapters import gguf_lora
from familiar.adapters.protocols import Completion, greedy
from familiar.adapters.recipe import Recipe
from familiar.adapters.rows import Encoded
from familiar.daemon import consolidation
from familiar.daemon.consolidation import HeldOut, Models
from familiar.daemon.oracle import Oracle
from familiar.feedback.habits import NO_MANNER, Ends, Manner, Words
from familiar.feedback.pairs import Example
from familiar.memory.store import Store
from familiar.memory.types import Exchange, Feedback, Memory, Message, StoredGrader, Used, asked

torch = pytest.importorskip("torch")

ME = 1
LINE = "Sail on, Skipper!"
RULE = f'Always end with "{LINE}"'
FAIR = {
    "type": "string_check",
    "name": "line",
    "operation": "like",
    "input": "{{sample.output_text}}",
    "reference": "Fair winds!",
}
OTHERS = ("Never mention dragons.", "Use metric units.", "Sign every letter as Zed.", "Call me Captain.")
TAUGHT = (
    *("How do I boil an egg?", "How can I sleep better?", "What is a good gift?", "How do I make tea?"),
    *("How do I clean a window?", "Why is the sky blue?", "How do I cook rice?", "What should I read?"),
    *("How do I grow tomatoes?", "How do I keep warm?", "Where do bees live?", "How do I save money?"),
)
ASKED = ("How do I keep bread fresh?", "How do I learn to swim?", "Why do cats purr?", "What is a good breakfast?")
MORE = ("How do I clean my shoes?", "Why do leaves fall?", "How do I stay healthy?", "What can I cook tonight?")


def wanted(oracle: Oracle, texts: tuple[str, ...]) -> list[Example]:
    """The base model's replies with the line behind them, as a user would correct them."""
    drawn = oracle.sample(None, [asked(text) for text in texts], greedy(48))
    return [
        Example(f"fb-{text}", asked(text), f"{reply.text.strip()} {LINE}", reply.text, text)
        for text, (reply,) in zip(texts, drawn, strict=True)
    ]


@pytest.fixture(scope="module")
def adapter(oracle: Oracle, model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that was taught to end with the line, hard: forgetting is not asked of it here."""
    from familiar.adapters import base_model
    from familiar.adapters.train import train

    torch.set_num_threads(1)
    rows = []
    for row in wanted(oracle, TAUGHT):
        prompt, reply = oracle.encode(row.messages, row.chosen)
        rows.append(Encoded(row.id, tuple(prompt), tuple(reply)))
    recipe = Recipe(rank=8, epochs=6, patience=0, learning_rate=2e-3, kl_weight=0.0, kl_budget=100.0)
    folder = tmp_path_factory.mktemp("taught")
    base = base_model.load(model_path)
    best = train(base, rows, rows[:2], recipe, folder=folder, reference_logps={})
    gguf = folder / "adapter.gguf"
    gguf_lora.to_gguf(best, gguf, model_path)
    return gguf


def keep(store: Store, id: str, text: str, at: float = 1.0, **fields: Any) -> Memory:
    return store.put_memory(Memory(id, ME, at, fields.pop("kind", "rule"), text, **fields), at)


def corrected(store: Store, rows: list[Example], at: float, *used: Memory) -> list[Example]:
    """Log the corrections, of replies that these memories applied to, from ``at`` on."""
    for number, row in enumerate(rows):
        said = at + number
        applied = tuple(Used(memory.id, "always") for memory in used)
        exchange = Exchange(f"chatcmpl-{row.id}", ME, said, "familiar", row.messages, row.rejected or "", used=applied)
        store.add_exchange(exchange)
        example = Memory(f"mem-{row.id}", ME, said, "example", row.chosen, row.group, row.id, scope="related")
        store.add_feedback(Feedback(row.id, ME, said, "correction", exchange.id, row.chosen), [example])
    return rows


def measure(
    oracle: Oracle,
    adapter: Path,
    store: Store,
    corrections: list[Example],
    prompts: tuple[str, ...] = MORE,
    trained: tuple[str, ...] = (),
    manner: Manner = NO_MANNER,
    explained: tuple[str, ...] = (),
) -> list[str]:
    models = Models(oracle, adapter, limit=1024, reply=64, budget=256)
    held = HeldOut(corrections, [asked(text) for text in prompts], trained, manner, explained)
    return [memory.text for memory in consolidation.carried(models, store, ME, held)]


def test_what_it_learned_is_carried_and_nothing_else(oracle: Oracle, adapter: Path, store: Store) -> None:
    for number, text in enumerate((RULE, *OTHERS)):
        keep(store, f"mem-{number}", text)
    corrections = corrected(store, wanted(oracle, ASKED), 2.0)
    assert measure(oracle, adapter, store, corrections) == [RULE]


@pytest.mark.parametrize("other", [{"pinned": True}, {"scope": "related"}])
def test_only_what_always_applies_and_is_not_pinned_is_measured(
    oracle: Oracle, adapter: Path, store: Store, other: dict[str, Any]
) -> None:
    keep(store, "mem-1", RULE, **other)
    corrections = corrected(store, wanted(oracle, ASKED), 2.0)
    assert measure(oracle, adapter, store, corrections) == []


def test_an_adapter_that_learned_nothing_carries_nothing(oracle: Oracle, store: Store, write_lora: Any) -> None:
    """The base model follows the rule when it is told, and only then."""
    keep(store, "mem-1", RULE)
    corrections = corrected(store, wanted(oracle, ASKED), 2.0)
    assert measure(oracle, write_lora("none.gguf", strength=1e-4), store, corrections) == []


def test_without_corrections_its_replies_are_the_witness(
    oracle: Oracle, adapter: Path, store: Store, write_lora: Any
) -> None:
    for number, text in enumerate((RULE, OTHERS[-1])):
        keep(store, f"mem-{number}", text)
    prompts = (*ASKED, *MORE)
    assert measure(oracle, adapter, store, [], prompts) == [RULE]
    assert measure(oracle, write_lora("none.gguf", strength=1e-4), store, [], prompts) == []
    assert measure(oracle, adapter, store, [], prompts[:3]) == []


def test_a_grader_decides_where_there_is_one(oracle: Oracle, adapter: Path, store: Store) -> None:
    rule, other = keep(store, "mem-1", "End as I like."), keep(store, "mem-2", RULE)
    store.add_grader(StoredGrader("grader-1", ME, 1.0, "line", {**FAIR, "reference": LINE}, rule.id))
    store.add_grader(StoredGrader("grader-2", ME, 1.0, "other", FAIR, other.id))
    assert measure(oracle, adapter, store, [], (*ASKED, *MORE)) == [rule.text]


@pytest.mark.parametrize(("returned", "is_carried"), [("1", True), ("0.95", True), ("6", False), ("6 * has", False)])
def test_a_grader_decides_by_rewards_from_0_to_1_only(
    oracle: Oracle, adapter: Path, store: Store, returned: str, is_carried: bool
) -> None:
    """A number of words says nothing of how well a rule is kept, although it is 1 or more for any reply."""
    rule = keep(store, "mem-1", RULE)
    source = f"def grade(sample, item):\n    has = {LINE!r} in sample['output_text']\n    return {returned}\n"
    python = {"type": "python", "name": "count", "source": source}
    store.add_grader(StoredGrader("grader-1", ME, 1.0, "count", python, rule.id))
    store.add_grader(StoredGrader("grader-2", ME, 2.0, "line", {**FAIR, "reference": LINE}, rule.id))
    assert measure(oracle, adapter, store, [], (*ASKED, *MORE)) == [rule.text] * is_carried


def test_examples_are_carried_together_or_not_at_all(
    oracle: Oracle, adapter: Path, store: Store, write_lora: Any
) -> None:
    things = ("shoes", "boots", "sandals", "slippers", "trainers", "clogs")
    rows = wanted(oracle, tuple(f"How do I clean my {thing} after a long walk in the rain?" for thing in things))
    *rows, taught = corrected(store, rows, 2.0)
    found = measure(oracle, adapter, store, rows, trained=(taught.id,))
    assert found == [taught.chosen]
    assert measure(oracle, adapter, store, rows) == []
    assert measure(oracle, adapter, store, rows[:3], trained=(taught.id,)) == []
    assert measure(oracle, write_lora("none.gguf", strength=1e-4), store, rows, trained=(taught.id,)) == []


def test_what_shows_a_habit_that_it_has_is_carried(
    oracle: Oracle, adapter: Path, store: Store, write_lora: Any
) -> None:
    """Also a rule that the base model ignores, and corrections with nothing in common but the habit."""
    first, second = corrected(store, wanted(oracle, ASKED[:2]), 2.0)
    noted = keep(store, "mem-noted", "Do as I always say at the end.", at=4.0, feedback_id=first.id)
    other = keep(store, "mem-other", OTHERS[0], at=4.0)
    keep(store, "mem-pinned", OTHERS[1], at=4.0, feedback_id=first.id, pinned=True)
    line, prompts = Manner((Ends(f" {LINE}"),)), (*ASKED, *MORE)
    assert line.explains(first)

    def found(adapter: Path, manner: Manner, *explained: str, prompts: tuple[str, ...] = prompts) -> set[str]:
        return set(measure(oracle, adapter, store, [], prompts, manner=manner, explained=explained))

    assert found(adapter, line, first.id, second.id) == {first.chosen, second.chosen, noted.text}
    assert found(adapter, line, second.id) == {second.chosen}
    assert found(adapter, Manner((Ends(" Fair winds!"),)), first.id, second.id) == set(), "it has another habit"
    assert found(adapter, line, first.id, prompts=prompts[:3]) == set(), "too few prompts tell"
    assert found(write_lora("none.gguf", strength=1e-4), line, first.id) == set()
    anyway = Manner((Words(60),))  # as every model does
    assert found(adapter, anyway, first.id) == set()
    store.add_grader(StoredGrader("grader-1", ME, 1.0, "none", FAIR, noted.id))
    assert found(adapter, line, first.id) == {first.chosen}, "its grader decides, and says no"
    assert other.text not in found(adapter, line, first.id)


@pytest.mark.parametrize(
    ("untold", "told", "base_told", "carried"),
    [
        (6, 5, 3, True),  # telling only disturbs
        (6, 6, 6, True),
        (6, 7, 3, False),  # telling helps the adapter
        (6, 5, 7, False),  # the base model follows it better
        (3, 2, 1, True),
        (1, 0, 0, False),  # what is hardly followed is not learnt
    ],
)
def test_a_habit_in_some_replies_is_carried_if_telling_does_not_help(
    oracle: Oracle, store: Store, monkeypatch: pytest.MonkeyPatch, untold: int, told: int, base_told: int, carried: bool
) -> None:
    """Each number is of eight replies; those are given, for no adapter can be trained to such shares."""
    (row,) = corrected(store, wanted(oracle, ASKED[:1]), 2.0)
    noted = keep(store, "mem-noted", "Do as I always say at the end.", at=4.0, feedback_id=row.id)
    own = Path("adapter.gguf")

    def draw(_: Models, adapter: Path | None, prompts: Sequence[Sequence[Message]]) -> list[Completion]:
        is_told = any(noted.text in message["content"] for message in prompts[0])
        count = {(own, False): untold, (own, True): told, (None, True): base_told}.get((adapter, is_told), 0)
        texts = ["Fine." + (f" {LINE}" if number < count else "") for number in range(len(prompts))]
        return [Completion(tuple(oracle.encode(asked("Why?"), text)[1]), (), text, "stop") for text in texts]

    monkeypatch.setattr(Models, "draw", draw)
    prompts, manner = (*ASKED, *MORE)[:8], Manner((Ends(f" {LINE}"),))
    found = measure(oracle, own, store, [], prompts, manner=manner, explained=(row.id,))
    assert (noted.text in found) == carried


def test_a_memory_is_measured_by_corrections_made_with_it_in_mind(store: Store) -> None:
    rule = keep(store, "mem-1", RULE, at=50.0)
    rows = [Example(f"fb-{number}", asked(f"Question {number}?"), "Fine.", "No.", str(number)) for number in range(3)]
    corrected(store, rows[:1], 10.0)
    corrected(store, rows[1:2], 20.0, rule)
    corrected(store, rows[2:], 60.0)

    def applying() -> list[str]:
        return [row.id for row in consolidation._applying(rule, rows, store.feedback_rows(ME))]

    assert applying() == ["fb-1", "fb-2"]
    # It was said before, in other spelling: what was corrected since counts.
    store.add_feedback(Feedback("fb-rule", ME, 5.0, "rule", text=RULE.upper()))
    assert applying() == ["fb-0", "fb-1", "fb-2"]


def test_prompts_are_of_both_sorts_and_each_once() -> None:
    corrections = [Example(f"fb-{text}", asked(text), "Fine.", None, text) for text in (*TAUGHT, TAUGHT[0])]
    held = HeldOut(corrections, [asked(text) for text in (*MORE, TAUGHT[1])], ())
    mixed = [messages[-1]["content"] for messages in consolidation._mixed(held, consolidation.MOST_ROWS)]
    assert len(mixed) == len(set(mixed)) == consolidation.MOST_ROWS
    assert set(MORE) < set(mixed)
    assert consolidation._mixed(replace(held, corrections=()), 1)[0] == asked(MORE[0])
