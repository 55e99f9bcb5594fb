"""What there is to learn from a user: corrections, ratings and memories, and when that is too little."""

from pathlib import Path

import pytest

from familiar.daemon.learnable import learnable, parted
from familiar.daemon.learnable import signals as found_signals
from familiar.daemon.learning_preview import known_of, preview, waiting
from familiar.daemon.settings import Settings
from familiar.feedback import signals
from familiar.feedback.pairs import group_of
from familiar.feedback.signals import Origin
from familiar.memory.errors import NotEnoughSignals
from familiar.memory.store import Store
from familiar.memory.types import AdapterVersion, Exchange, LearningRun, Memory, Message

WISH = 'I would be glad if you parted from me with "{}" in every answer.'


def correct(store: Store, number: int, text: str, note: str | None = None) -> None:
    messages = (Message(role="user", content=f"How do I cook {number} kinds of rice?"),)
    exchange = Exchange(f"chatcmpl-{number}", store.default_user(), float(number), "familiar", messages, "Boil it.")
    store.add_exchange(exchange)
    signal = signals.correction(Origin(f"fb-{number}", float(number), "api"), exchange, text, note)
    store.add_feedback(signal.feedback, signal.memories)


def test_rules_alone_can_be_learnt(store: Store, data_dir: Path, model_path: Path) -> None:
    user = store.default_user()
    settings = Settings(model=str(model_path), data_dir=data_dir, min_signals=1)
    assert "needs at least" in preview(settings, store, user)["cannot"]
    store.put_memory(Memory("mem-1", user, 1.0, "rule", "Keep answers short."), 1.0)
    found = learnable(store, user, 1)
    assert (found.dataset.train, found.dataset.held_out, found.taught.count) == ((), (), 1)
    assert preview(settings, store, user)["cannot"] is None
    with pytest.raises(NotEnoughSignals):
        learnable(store, user, 4)


def test_corrections_that_a_newer_wish_has_ended_teach_no_more(store: Store) -> None:
    user = store.default_user()
    correct(store, 1, "Boil it. Tot ziens!", WISH.format("Tot ziens!"))
    for number in (2, 3, 4):
        correct(store, number, f"Boil it {number} times. Tot ziens!")
    assert len(_taught(store, user)) == 4
    correct(store, 5, "Boil it. Bis bald!", WISH.replace("you", "you now", 1).format("Bis bald!"))
    for number in (6, 7, 8):
        correct(store, number, f"Boil it {number} times. Bis bald!")
    assert sorted(_taught(store, user)) == ["fb-5", "fb-6", "fb-7", "fb-8"]


def test_what_judges_is_taught_by_nothing_else(store: Store) -> None:
    """Not by the same question asked again: neither by a rating, nor by the memories that were told then."""
    user = store.default_user()
    store.put_memory(Memory("mem-brief", user, 1.0, "rule", "Keep answers short."), 1.0)
    for number in range(1, 9):
        correct(store, number, f"Boil it {number} times.")
    held_out = learnable(store, user, 4).dataset.held_out
    for number in range(1, 9):
        messages = (Message(role="user", content=f"how do i cook {number} kinds of rice"),)
        exchange = Exchange(f"chatcmpl-again-{number}", user, 20.0 + number, "familiar", messages, "Boil it.")
        store.add_exchange(exchange)
        signal = signals.rating(Origin(f"fb-again-{number}", 20.0 + number, "api"), exchange, 1)
        store.add_feedback(signal.feedback, signal.memories)
    found = learnable(store, user, 4)
    assert found.dataset.held_out == held_out
    judging = {example.group for example in held_out}
    rated = {group_of(rating.messages) for rating in found.ratings}
    told = {group_of(messages) for messages, _ in found.taught.own}
    assert rated == told == {example.group for example in found.dataset.train}
    assert not judging & rated


def test_new_is_what_a_run_would_newly_learn(store: Store, data_dir: Path) -> None:
    user = store.default_user()
    for number in range(1, 5):
        correct(store, number, f"Boil it {number} times.")
    assert known_of(store, user).new == [1.0, 2.0, 3.0, 4.0]
    store.add_run(LearningRun("run-1", user, 10.0, "promoted", {}, "", ended_at=11.0, version=None))
    store.add_run(LearningRun("run-2", user, 10.5, "failed", {}, "", ended_at=11.0))
    assert known_of(store, user).new == []
    messages = (Message(role="user", content="And pasta?"),)
    exchange = Exchange("chatcmpl-r", user, 12.0, "familiar", messages, "Boil that too.")
    store.add_exchange(exchange)
    store.add_feedback(signals.rating(Origin("fb-r", 12.0, "api"), exchange, -1, None).feedback)
    store.put_memory(Memory("mem-rule", user, 13.0, "rule", "Keep answers short."), 13.0)
    correct(store, 14, "Steam it.", 'Always end with "Onward, Skipper."')  # the rule is one with its correction
    assert {memory.kind for memory in store.memories(user)} == {"rule", "example"}
    assert len(store.memories(user, "rule")) == 2
    known = known_of(store, user)
    assert known.new == [12.0, 13.0, 14.0]
    told = waiting(Settings(data_dir=data_dir, min_new_signals=3), store, user)
    assert (told.new, told.since) == (3, 14.0)
    assert known.cannot(4) is None
    assert "has 5" in (known.cannot(99) or "")


def test_what_a_version_was_trained_on_does_not_judge_the_next(store: Store, data_dir: Path, model_path: Path) -> None:
    user = store.default_user()
    settings = Settings(model=str(model_path), data_dir=data_dir)
    for number in range(1, 13):
        correct(store, number, f"Boil it {number} times.")
    would_judge = [example.id for example in learnable(store, user, 4).dataset.held_out]
    store.add_run(LearningRun("run-1", user, 20.0, "promoted", {}, "", ended_at=21.0, version=1))
    learnt = tuple(would_judge)
    store.add_version(AdapterVersion(user, 1, 21.0, "v1", None, "base", "gguf", "run-1", learnt, {}), True)
    about = store.exchange(user, would_judge[0].replace("fb", "chatcmpl"))
    again = signals.correction(Origin("fb-again", 22.0, "api"), about, "Steam it instead.", None)
    store.add_feedback(again.feedback, again.memories)  # the version knows it by the signal that this one replaces
    dataset = learnable(store, user, 4).dataset
    judging = {example.id for example in dataset.held_out}
    assert len(judging) >= 2
    assert not judging & {*would_judge, "fb-again"}
    told = preview(settings, store, user)
    assert (told["train"], told["held_out"]) == (len(dataset.train), len(dataset.held_out))
    assert len(dataset.train) + len(dataset.held_out) == 12
    assert {example.id for example in parted(found_signals(store, user), 4).dataset.held_out} == judging


def _taught(store: Store, user: int) -> list[str]:
    dataset = learnable(store, user, 4).dataset
    return [example.id for example in (*dataset.train, *dataset.held_out)]
