"""What the store makes of statements: nothing twice, the newest word counts, and what it ended can be looked up."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from familiar.memory.errors import InvalidInput, NotFound
from familiar.memory.store import Store
from familiar.memory.types import Exchange, Memory, MemoryState, Used

EVERY_STATE: tuple[MemoryState, ...] = ("active", "superseded", "evicted")


@pytest.fixture
def store(data_dir: Path) -> Iterator[Store]:
    with Store.open(data_dir / "familiar.db", clock=lambda: 1000.0) as opened:
        yield opened


def state(store: Store, number: int, text: str, **changes: object) -> Memory:
    """The user states ``text`` at the time ``number``."""
    memory = Memory(f"mem-{number}", 1, float(number), "rule", text)
    return store.put_memory(replace(memory, **changes), float(number))  # type: ignore[arg-type]


def correct(store: Store, number: int, prompt: str, reply: str) -> Memory:
    return state(store, number, reply, kind="example", prompt=prompt, scope="related")


def conversation(store: Store, number: int) -> str:
    said = ({"role": "user", "content": f"Hello {number}"},)
    return store.add_exchange(Exchange(f"chatcmpl-{number}", 1, float(number), "familiar", said, "Hi."))  # type: ignore[arg-type]


def texts(store: Store, *states: MemoryState) -> list[str]:
    return [memory.text for memory in store.memories(1, states=states or ("active",))]


def test_the_same_said_again_takes_the_newer_words_and_is_the_newest(store: Store) -> None:
    state(store, 1, "Use metric units")
    state(store, 2, "Write in French")
    again = state(store, 3, "Please use the metric units.", source="chat", scope="related")
    assert (again.id, again.created_at, again.text) == ("mem-1", 3.0, "Please use the metric units.")
    assert (again.source, again.scope) == ("chat", "related")
    assert texts(store, *EVERY_STATE) == ["Write in French", "Please use the metric units."]
    assert [found.id for found, _ in store.search_memories(1, "please")] == ["mem-1"]
    assert state(store, 4, "use metric units").id == "mem-1"  # both of its wordings are known
    assert state(store, 5, "Please use the metric units").id == "mem-1"


def test_said_again_it_keeps_its_pin_and_its_use(store: Store) -> None:
    state(store, 1, "Use metric units", pinned=True)
    used = (Used("mem-1", "pinned"),)
    store.add_exchange(Exchange("chatcmpl-1", 1, 5.0, "familiar", (), "Hi.", used=used))
    again = state(store, 9, "Use metric units!")
    assert (again.pinned, again.uses, again.last_used_at) == (True, 1, 5.0)


def test_a_fact_stated_as_a_rule_is_the_same_memory(store: Store) -> None:
    state(store, 1, "I live in Rome", kind="fact")
    assert state(store, 2, "I live in Rome.", kind="rule").id == "mem-1"
    assert [memory.kind for memory in store.memories(1, states=EVERY_STATE)] == ["rule"]


def test_the_newest_word_counts_and_the_older_one_is_history(store: Store) -> None:
    state(store, 1, "I live in Rome")
    state(store, 2, "I like tea")
    newest = state(store, 3, "I moved to Oslo")
    assert texts(store) == ["I like tea", "I moved to Oslo"]
    older = store.memory(1, "mem-1")
    assert (older.state, older.superseded_by, older.ended_at) == ("superseded", "mem-3", 3.0)
    assert store.search_memories(1, "rome") == []
    assert [memory.id for memory, _ in store.search_memories(1, "rome", states=("superseded",))] == ["mem-1"]
    assert store.history_of(1, "mem-1") == store.history_of(1, "mem-3") == [older, newest]
    assert [memory.id for memory in store.history_of(1, "mem-2")] == ["mem-2"]


def test_a_preference_that_drifts_and_comes_back_is_one_chain(store: Store) -> None:
    state(store, 1, "Use metric units")
    state(store, 2, "Use imperial units")
    back = state(store, 3, "Use metric units")
    assert (back.id, back.state, back.superseded_by, back.ended_at) == ("mem-1", "active", None, None)
    assert store.memory(1, "mem-2").superseded_by == "mem-1"
    state(store, 4, "Use imperial units")
    assert texts(store) == ["Use imperial units"]
    assert [memory.id for memory in store.history_of(1, "mem-2")] == ["mem-1", "mem-2"]


def test_one_statement_may_end_several(store: Store) -> None:
    state(store, 1, "I like olives")
    state(store, 2, "I love olives")
    state(store, 3, "I hate olives")
    assert texts(store) == ["I hate olives"]
    assert [memory.id for memory in store.history_of(1, "mem-2")] == ["mem-1", "mem-2", "mem-3"]


def test_a_corrected_reply_to_the_same_prompt_ends_the_earlier_one(store: Store) -> None:
    correct(store, 1, "What is the capital of Australia?", "Sydney.")
    correct(store, 2, "What is the capital of Austria?", "Vienna.")
    correct(store, 3, "what is the capital of  australia", "Canberra.")
    assert texts(store) == ["Vienna.", "Canberra."]
    correct(store, 4, "😀", "😀😀")
    correct(store, 5, "😀", "🙃")
    assert texts(store) == ["Vienna.", "Canberra.", "🙃"]


def test_a_prompt_is_found_among_many_longer_ones(store: Store) -> None:
    for number in range(80):
        correct(store, number, f"hi there {number}", f"Hello {number}.")
    correct(store, 100, "Hi", "Good day.")
    correct(store, 101, "hi", "Good evening.")
    assert len(store.memories(1)) == 81
    assert store.memory(1, "mem-100").superseded_by == "mem-101"


def test_a_pin_passes_to_what_takes_the_place(store: Store) -> None:
    state(store, 1, "My address is 5 Main Street", pinned=True)
    assert state(store, 2, "My address is 12 High Street").pinned


def test_what_is_said_in_one_conversation_is_for_that_one(store: Store) -> None:
    first, second = conversation(store, 1), conversation(store, 2)
    state(store, 3, "Answer in French")
    here = state(store, 4, "Answer in German", scope="conversation", conversation_id=first)
    there = state(store, 5, "Answer in German", scope="conversation", conversation_id=second)
    assert here.id != there.id
    assert len(store.memories(1)) == 3
    state(store, 6, "Answer in Greek", scope="conversation", conversation_id=first)
    assert store.memory(1, here.id).state == "superseded"
    assert store.memory(1, there.id).state == "active"
    everywhere = state(store, 7, "Answer in German")
    assert everywhere.id == "mem-7"
    assert {memory.id for memory in store.memories(1)} == {"mem-5", "mem-6", "mem-7"}


def test_users_do_not_end_each_others_memories(store: Store) -> None:
    bob = store.users.add("bob", "fam-key", 1.0).id
    state(store, 1, "I live in Rome")
    state(store, 2, "I live in Oslo", user_id=bob)
    assert state(store, 3, "I live in Rome", user_id=bob).id == "mem-3"
    assert texts(store) == ["I live in Rome"]
    assert store.memory(1, "mem-1").feedback_id is None


def test_a_restored_memory_ends_what_contradicts_it(store: Store) -> None:
    state(store, 1, "I live in Rome")
    state(store, 2, "I live in Oslo")
    restored = store.restore_memory(1, "mem-1", 9.0)
    assert (restored.state, restored.created_at, restored.superseded_by, restored.ended_at) == (
        "active",
        9.0,
        None,
        None,
    )
    assert store.memory(1, "mem-2").superseded_by == "mem-1"
    assert store.restore_memory(1, "mem-1", 10.0) == restored  # it is active: nothing to do
    with pytest.raises(NotFound) as missing:
        store.restore_memory(1, "mem-9", 1.0)
    assert missing.value.param == "memory_id"


def test_what_an_active_memory_says_is_not_restored_beside_it(store: Store) -> None:
    state(store, 1, "I live in Rome")
    state(store, 2, "I live in Oslo")
    state(store, 3, "Now I live in Rome")
    assert store.memory(1, "mem-3").state == "active"
    with pytest.raises(InvalidInput, match="mem-3"):
        store.restore_memory(1, "mem-1", 9.0)


def test_editing_the_text_states_it_anew(store: Store) -> None:
    state(store, 1, "I live in Rome")
    state(store, 2, "I like tea")
    edited = store.edit_memory(1, "mem-2", 9.0, text=" I live in Oslo ")
    assert (edited.id, edited.text, edited.created_at) == ("mem-2", "I live in Oslo", 9.0)
    assert store.memory(1, "mem-1").superseded_by == "mem-2"
    assert [memory.id for memory, _ in store.search_memories(1, "oslo")] == ["mem-2"]
    assert store.search_memories(1, "tea") == []
    assert state(store, 10, "I live in Oslo").id == "mem-2"


def test_editing_something_else_leaves_its_age_and_its_place(store: Store) -> None:
    here = conversation(store, 1)
    state(store, 1, "Be brief")
    assert store.edit_memory(1, "mem-1", 9.0, pinned=True).created_at == 1.0
    assert store.edit_memory(1, "mem-1", 9.0, scope="related").scope == "related"
    bound = store.edit_memory(1, "mem-1", 9.0, scope="conversation", conversation_id=here)
    assert (bound.scope, bound.conversation_id, bound.pinned) == ("conversation", here, True)
    assert store.edit_memory(1, "mem-1", 9.0, pinned=False, scope="always").scope == "always"
    example = store.edit_memory(1, "mem-1", 9.0, kind="example", prompt="How are you?")
    assert (example.kind, example.prompt, example.text) == ("example", "How are you?", "Be brief")
    assert store.edit_memory(1, "mem-1", 9.0, kind="fact").prompt is None


def test_an_ended_memory_is_edited_without_ending_others(store: Store) -> None:
    state(store, 1, "I live in Rome")
    state(store, 2, "I live in Oslo")
    assert store.edit_memory(1, "mem-1", 3.0, text="I live in Turin").state == "superseded"
    assert texts(store) == ["I live in Oslo"]


def test_edits_that_cannot_be_are_refused_whole(store: Store) -> None:
    state(store, 1, "Be brief")
    state(store, 2, "I live in Rome")
    state(store, 3, "I live in Oslo")
    wrong = [
        ("text", {"text": "be  brief!"}),
        ("text", {"text": "please be brief"}),
        ("text", {"text": "I live in Rome"}),
        ("text", {"text": " "}),
        ("prompt", {"prompt": "How are you?"}),
        ("prompt", {"kind": "example"}),
        ("conversation_id", {"scope": "conversation"}),
    ]
    before = store.memories(1, states=EVERY_STATE)
    for param, changes in wrong:
        with pytest.raises(InvalidInput) as refused:
            store.edit_memory(1, "mem-3", 9.0, **changes)  # type: ignore[arg-type]
        assert refused.value.param == param
    with pytest.raises(NotFound) as missing:
        store.edit_memory(1, "mem-3", 9.0, scope="conversation", conversation_id="conv-9")
    assert missing.value.param == "conversation_id"
    with pytest.raises(NotFound) as missing:
        store.edit_memory(1, "mem-9", 9.0, pinned=True)
    assert missing.value.param == "memory_id"
    assert store.memories(1, states=EVERY_STATE) == before


def test_statements_that_cannot_be_are_refused(store: Store) -> None:
    bob = store.users.add("bob", "fam-key", 1.0).id
    mine = conversation(store, 1)
    with pytest.raises(InvalidInput, match="needs its conversation_id"):
        state(store, 1, "Be brief", scope="conversation")
    with pytest.raises(NotFound, match=mine):
        state(store, 1, "Be brief", user_id=bob, scope="conversation", conversation_id=mine)
    with pytest.raises(InvalidInput, match="has no prompt"):
        state(store, 1, "Be brief", prompt="Hi")
    with pytest.raises(InvalidInput, match="needs a prompt"):
        state(store, 1, "Be brief", kind="example")
    with pytest.raises(NotFound, match="was removed"):
        state(store, 1, "Be brief", user_id=99)
    assert store.memories(1) == store.memories(bob) == []


def test_where_a_memory_was_shown_is_counted_and_kept(store: Store) -> None:
    state(store, 1, "Be brief")
    for number, score in ((1, 0.5), (2, None), (3, 0.25)):
        used = (Used("mem-gone", "always"), Used("mem-1", "words", score))
        store.add_exchange(Exchange(f"chatcmpl-{number}", 1, float(number), "familiar", (), "Hi.", used=used))
    shown = store.use_of(1, "mem-1", limit=2)
    assert [(exchange.id, used) for exchange, used in shown] == [
        ("chatcmpl-3", Used("mem-1", "words", 0.25)),
        ("chatcmpl-2", Used("mem-1", "words")),
    ]
    memory = store.memory(1, "mem-1")
    assert (memory.uses, memory.last_used_at) == (3, 3.0)
    assert len(store.use_of(1, "mem-gone")) == 3
    bob = store.users.add("bob", "fam-key", 1.0).id
    assert store.use_of(bob, "mem-1") == []
    with pytest.raises(NotFound):
        store.history_of(bob, "mem-1")


def test_lists_are_by_kind_and_state(store: Store) -> None:
    state(store, 1, "I live in Rome", kind="fact")
    state(store, 2, "I live in Oslo", kind="fact")
    state(store, 3, "Be brief")
    correct(store, 4, "Hi", "Good day.")
    assert [memory.id for memory in store.memories(1)] == ["mem-2", "mem-3", "mem-4"]
    assert [memory.id for memory in store.memories(1, "fact", states=EVERY_STATE)] == ["mem-1", "mem-2"]
    assert [memory.id for memory in store.memories(1, states=("superseded",))] == ["mem-1"]
    assert store.memories(1, states=()) == []
    assert store.counts(1)["memories"] == 3
