"""Which requests are one conversation, told from what the user said in them and nothing else."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from familiar.memory.history import history_key
from familiar.memory.store import Store
from familiar.memory.types import Exchange, Message

NOW = 10_000.0


@pytest.fixture
def store(data_dir: Path) -> Iterator[Store]:
    with Store.open(data_dir / "familiar.db", clock=lambda: NOW) as opened:
        yield opened


def turns(*texts: str, system: str | None = None) -> tuple[Message, ...]:
    """What a client sends: the user's and the assistant's turns by turns, the user's first."""
    roles = ("user", "assistant")
    told: tuple[Message, ...] = ({"role": "system", "content": system},) if system else ()
    return (*told, *(Message(role=roles[n % 2], content=text) for n, text in enumerate(texts)))


def answer(
    store: Store, id: str, messages: tuple[Message, ...], reply: str = "Fine.", at: float = NOW, user: int = 1
) -> str:
    return store.add_exchange(Exchange(f"chatcmpl-{id}", user, at, "familiar", messages, reply))


def test_a_conversation_goes_on_whatever_the_client_changes_but_what_the_user_said(store: Store) -> None:
    first = answer(store, "1", turns("Hello"), "Hi!")
    # Another system message, other white space, and a reply that the user has edited.
    second = turns(" Hello\n", "Good day!", "How  are you?", system="Be kind.")
    assert store.conversation_of(1, second) == first
    assert answer(store, "2", second) == first
    assert answer(store, "3", turns("Hello", "Hi!", "How are you?", "Fine.", "Good.")) == first
    assert store.exchange(1, "chatcmpl-3").conversation_id == first


def test_another_first_message_or_another_word_is_another_conversation(store: Store) -> None:
    first = answer(store, "1", turns("Hello"))
    assert store.conversation_of(1, turns("Goodbye")) is None
    assert store.conversation_of(1, turns("Hello there", "Hi!", "How are you?")) is None
    assert answer(store, "2", turns("Goodbye")) != first


def test_of_conversations_that_begin_alike_the_reply_tells_which(store: Store) -> None:
    first = answer(store, "1", turns("Hello"), "Hi!", at=NOW - 9000)
    second = answer(store, "2", turns("Hello"), "Good day!")
    assert first != second
    assert store.conversation_of(1, turns("Hello", "Hi! ", "Well?")) == first
    assert store.conversation_of(1, turns("Hello", "Good day!", "Well?")) == second
    assert store.conversation_of(1, turns("Hello", "edited", "Well?")) == second  # no reply of ours: the newest


def test_a_first_message_sent_again_within_the_hour_is_a_regeneration(store: Store) -> None:
    first = answer(store, "1", turns("Tell me a story"), at=NOW - 3500)
    assert store.conversation_of(1, turns("Tell me a story")) == first
    assert answer(store, "1:1", turns("Tell me a story"), "Another.") == first
    old = answer(store, "2", turns("What is new?"), at=NOW - 3601)
    assert store.conversation_of(1, turns("What is new?")) is None
    assert answer(store, "3", turns("What is new?")) != old


def test_the_first_words_of_a_conversation_that_went_on_begin_another_one(store: Store) -> None:
    first = answer(store, "1", turns("Hello"))
    assert answer(store, "2", turns("Hello", "Hi!", "How are you?")) == first
    assert store.conversation_of(1, turns("Hello")) is None
    second = answer(store, "3", turns("Hello"))
    assert second != first
    assert store.conversation_of(1, turns("Hello")) == second, "nothing was said since"


def test_a_later_turn_asked_again_stays_in_its_conversation_however_late(store: Store) -> None:
    first = answer(store, "1", turns("Hello"), at=1.0)
    later = turns("Hello", "Fine.", "And you?")
    answer(store, "2", later, at=2.0)
    assert answer(store, "3", later) == first


def test_replies_to_the_same_turns_are_found_newest_first(store: Store) -> None:
    asked = turns("Hello", "Fine.", "And you?")
    answer(store, "1", turns("Hello"))
    answer(store, "2", asked, "one")
    answer(store, "3", asked, "two")
    assert [found.completion for found in store.replies_to(1, turns("Hello", "edited", "And  you?"))] == ["two", "one"]
    assert store.replies_to(1, turns("And you?")) == []
    bob = store.users.add("bob", "fam-key", 1.0).id
    assert store.replies_to(bob, asked) == []


def test_users_never_share_a_conversation(store: Store) -> None:
    mine = answer(store, "1", turns("Hello"))
    bob = store.users.add("bob", "fam-key", 1.0).id
    assert store.conversation_of(bob, turns("Hello")) is None
    assert answer(store, "2", turns("Hello"), user=bob) != mine
    given = Exchange("chatcmpl-3", bob, NOW, "familiar", turns("New"), "Fine.", conversation_id=mine)
    assert store.add_exchange(given) != mine


def test_a_request_without_a_users_turn_is_a_conversation_of_its_own(store: Store) -> None:
    greeting = turns(system="Greet the user.")
    first = answer(store, "1", greeting)
    assert store.conversation_of(1, greeting) is None
    assert answer(store, "2", greeting) != first


def test_an_exchange_that_names_its_conversation_is_put_there(store: Store) -> None:
    first = answer(store, "1", turns("Hello"))
    named = Exchange("chatcmpl-2", 1, NOW, "familiar", turns("Something else"), "Fine.", conversation_id=first)
    assert store.add_exchange(named) == first
    unknown = Exchange("chatcmpl-3", 1, NOW, "familiar", turns("A third"), "Fine.", conversation_id="conv-9")
    assert store.add_exchange(unknown) not in (first, "conv-9")


@given(st.lists(st.text()), st.lists(st.text()))
def test_the_key_is_of_the_turns_and_not_of_their_sum(one: list[str], other: list[str]) -> None:
    keys = [history_key([{"role": "user", "content": text} for text in texts]) for texts in (one, other)]
    folded = [[" ".join(text.split()) for text in texts] for texts in (one, other)]
    assert (keys[0] == keys[1]) == (folded[0] == folded[1])
