"""What is recalled for a request, on a real store."""

import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from familiar.memory.recall import Recalled, recall
from familiar.memory.store import Store
from familiar.memory.types import Exchange, Feedback, Memory, Message


@pytest.fixture
def store(data_dir: Path) -> Iterator[Store]:
    with Store.open(data_dir / "familiar.db") as opened:
        opened.add_exchange(Exchange("chatcmpl-1", 1, 0.0, "familiar", ({"role": "user", "content": "x"},), "y"))
        yield opened


def add_rule(store: Store, number: int, text: str) -> None:
    memory = Memory(f"rule-{number}", 1, float(number), "rule", text, feedback_id=f"fb-{number}")
    store.add_feedback(Feedback(f"fb-{number}", 1, float(number), "rule", text=text), [memory])


def add_example(store: Store, number: int, prompt: str, text: str) -> None:
    memory = Memory(f"example-{number}", 1, float(number), "example", text, prompt, f"fb-{number}")
    store.add_feedback(Feedback(f"fb-{number}", 1, float(number), "correction", "chatcmpl-1", text), [memory])


def ask(store: Store, *contents: str, budget_tokens: int = 1000, cost: int = 10) -> Recalled:
    messages: list[Message] = []
    for content in contents:
        messages += [{"role": "user", "content": content}, {"role": "assistant", "content": "fine"}]
    return recall(store, 1, messages[:-1], budget_tokens=budget_tokens, count_tokens=lambda memory: cost)


def ids(recalled: Recalled) -> list[str]:
    return [memory.id for memory in recalled.memories]


def test_empty_store_recalls_nothing(store: Store) -> None:
    assert ask(store, "Hello") == Recalled((), 0)
    assert recall(store, 1, [], budget_tokens=100, count_tokens=lambda memory: 1) == Recalled((), 0)


def test_rules_always_apply_newest_first(store: Store) -> None:
    for number, text in enumerate(("Sign as Zed", "Use metric units", "Be brief"), start=1):
        add_rule(store, number, text)
    assert ids(ask(store, "What is the weather?")) == ["rule-3", "rule-2", "rule-1"]
    assert ids(ask(store, "")) == ["rule-3", "rule-2", "rule-1"]
    assert (
        recall(store, 1, [{"role": "system", "content": "x"}], budget_tokens=30, count_tokens=lambda _: 10).tokens == 30
    )


def test_matching_rule_comes_first(store: Store) -> None:
    add_rule(store, 1, "Sign every letter as Zed")
    add_rule(store, 2, "Use metric units")
    add_rule(store, 3, "Be brief")
    assert ids(ask(store, "Write a letter to Ann")) == ["rule-1", "rule-3", "rule-2"]


def test_stop_words_alone_do_not_make_a_rule_match(store: Store) -> None:
    add_rule(store, 1, "You should do what is in the list")
    add_rule(store, 2, "Be brief")
    assert ids(ask(store, "What should you do in the morning?")) == ["rule-2", "rule-1"]


def test_example_only_where_it_matches(store: Store) -> None:
    add_example(store, 1, "What is the boiling point of water?", "100 °C")
    assert ids(ask(store, "At what point does water boil?")) == ["example-1"]
    assert ids(ask(store, "What is the name of the king?")) == []  # only stop words are shared
    assert ids(ask(store, "Please water the roses, the tulips and the old pear tree")) == []  # one word of many
    assert ids(ask(store, "100 °C")) == []  # it is the prompt that must match, not the reply


def test_example_follows_the_last_user_message(store: Store) -> None:
    add_example(store, 1, "Who wrote Hamlet?", "Shakespeare.")
    assert ids(ask(store, "Who wrote Hamlet?", "And what should I cook tonight?")) == []
    assert ids(ask(store, "What should I cook tonight?", "who wrote hamlet")) == ["example-1"]


@pytest.mark.parametrize("message", ["How are you?", "Hello!", "I'm so fed up with you"])
def test_same_message_recalls_its_correction_even_without_content_words(store: Store, message: str) -> None:
    add_example(store, 1, message, "Well met.")
    assert ids(ask(store, message.upper())) == ["example-1"]


def test_at_most_two_examples_after_the_rules(store: Store) -> None:
    for number in range(1, 5):
        add_example(store, number, f"Name a red flower, try {number}", f"Rose {number}")
    add_rule(store, 9, "Be brief")
    recalled = ask(store, "Name a red flower")
    assert [memory.kind for memory in recalled.memories] == ["rule", "example", "example"]


def test_best_example_first(store: Store) -> None:
    add_example(store, 1, "Name a red flower", "Rose")
    add_example(store, 2, "Name a red car", "Ferrari")
    for number in range(3, 12):
        add_example(store, number, f"Unrelated matter {number}", "Yes")
    assert ids(ask(store, "Name one red flower"))[0] == "example-1"


def test_nothing_twice(store: Store) -> None:
    add_rule(store, 1, "Use metric units")
    add_rule(store, 2, "use  metric units.")
    add_rule(store, 3, "Use C")
    add_rule(store, 4, "Use C++")
    assert ids(ask(store, "How long is a mile in metric units?")) == ["rule-2", "rule-4", "rule-3"]


def test_later_correction_of_the_same_prompt_supersedes(store: Store) -> None:
    add_example(store, 1, "Who wrote Hamlet?", "Marlowe.")
    add_example(store, 2, "who wrote Hamlet", "Shakespeare.")
    assert [memory.text for memory in ask(store, "Who wrote Hamlet?").memories] == ["Shakespeare."]
    add_example(store, 3, "Who wrote Hamlet?", "Marlowe.")  # the first one again: it is the latest word
    assert [memory.text for memory in ask(store, "Who wrote Hamlet?").memories] == ["Marlowe."]


def test_too_long_memory_is_skipped_and_a_later_one_still_fits(store: Store) -> None:
    add_rule(store, 1, "short")
    add_rule(store, 2, "very " * 50 + "long")
    add_rule(store, 3, "brief")
    messages: list[Message] = [{"role": "user", "content": "Hello"}]
    recalled = recall(store, 1, messages, budget_tokens=10, count_tokens=lambda memory: len(memory.text))
    assert [memory.text for memory in recalled.memories] == ["brief", "short"]
    assert recalled.tokens == 10  # exactly full


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(budget_tokens=st.integers(0, 120), seed=st.integers(0, 99))
def test_budget_is_respected_and_left_only_where_nothing_fits(store: Store, budget_tokens: int, seed: int) -> None:
    if not store.memories(1):
        for number in range(8):
            add_rule(store, number, f"Rule {number} on flowers")
            add_example(store, 100 + number, f"Name a flower, {number}", f"Rose {number}")

    def cost(memory: Memory) -> int:
        return 1 + (zlib.crc32(f"{memory.id} {seed}".encode()) % 20)

    messages: list[Message] = [{"role": "user", "content": "Name a flower"}]
    recalled = recall(store, 1, messages, budget_tokens=budget_tokens, count_tokens=cost)
    assert recalled.tokens == sum(map(cost, recalled.memories)) <= budget_tokens
    assert len(set(ids(recalled))) == len(recalled.memories)
    left_out = [rule for rule in store.memories(1, "rule") if rule not in recalled.memories]
    shown = sum(cost(memory) for memory in recalled.memories if memory.kind == "rule")
    # A rule that was left out had no room where it stood, so it has none now: examples come after all rules.
    assert all(shown + cost(rule) > budget_tokens for rule in left_out)


def test_another_users_memories_are_not_recalled(store: Store) -> None:
    with store._connection.write() as transaction:
        transaction.execute("INSERT INTO users VALUES (2, 'you', 0)")
    add_rule(store, 1, "Be brief")
    messages: list[Message] = [{"role": "user", "content": "be brief"}]
    assert recall(store, 2, messages, budget_tokens=100, count_tokens=lambda memory: 1) == Recalled((), 0)
    assert store.search_memories(2, "brief") == []
