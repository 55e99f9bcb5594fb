"""Which memories an adapter version follows untold: kept for it alone, and given up when it or they no longer hold."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from familiar.memory.consolidated import LATEST
from familiar.memory.errors import NotFound
from familiar.memory.recall import MAX_EXAMPLES, Recaller
from familiar.memory.store import Store
from familiar.memory.types import AdapterVersion, Exchange, Feedback, LearningRun, Memory, Message, Used

ME = 1


@pytest.fixture
def store(data_dir: Path) -> Iterator[Store]:
    with Store.open(data_dir / "familiar.db", clock=lambda: 1000.0) as opened:
        promote(opened, 1)
        yield opened


def promote(store: Store, number: int, user: int = ME) -> None:
    run = LearningRun(f"run-{user}-{number}", user, 1.0, "promoted", {}, "print")
    store.add_run(run)
    parent = number - 1 or None
    version = AdapterVersion(user, number, 2.0, f"adapters/{user}/v{number}", parent, "b", "g", run.id, (), {})
    store.add_version(version, make_current=True)


def keep(store: Store, id: str, text: str, **fields: Any) -> Memory:
    return store.put_memory(Memory(id, ME, 1.0, fields.pop("kind", "rule"), text, **fields), 1.0)


def learn(store: Store, *memories: Memory, version: int = 1) -> None:
    store.set_consolidated(ME, version, memories)


def reply(store: Store, number: int, *memories: Memory, version: int | None = 1, reason: str = "learnt") -> str:
    """A logged reply to which these memories applied."""
    used = tuple(Used(memory.id, reason) for memory in memories)  # type: ignore[arg-type]
    turn = Message(role="user", content=f"Question {number}")
    id = f"chatcmpl-{number}"
    store.add_exchange(Exchange(id, ME, float(number), "familiar", (turn,), "An answer.", version, used))
    return id


def say(store: Store, about: str, kind: str = "correction", **fields: Any) -> None:
    store.add_feedback(Feedback(f"fb-{about}-{kind}", ME, 50.0, kind, about, **fields))  # type: ignore[arg-type]


def test_a_version_has_its_own(store: Store) -> None:
    promote(store, 2)
    brief, metric = keep(store, "mem-1", "Be brief."), keep(store, "mem-2", "Use metric units.")
    learn(store, brief, metric)
    learn(store, metric, version=2)
    assert store.consolidated(ME, 1) == {brief.id, metric.id}
    assert store.consolidated(ME, 2) == {metric.id}
    assert store.consolidated(ME, 3) == frozenset()
    learn(store, brief, version=2)
    assert store.consolidated(ME, 2) == {brief.id}
    with pytest.raises(NotFound, match="no adapter version 3"):
        learn(store, brief, version=3)


def test_what_changed_while_it_was_measured_is_left_out(store: Store) -> None:
    measured = [keep(store, f"mem-{number}", f"Rule {number}.") for number in range(5)]
    store.put_memory(replace(measured[0], created_at=9.0), 9.0)
    store.edit_memory(ME, "mem-1", 9.0, pinned=True)
    store.edit_memory(ME, "mem-2", 9.0, text="Another rule.")
    store.forget(ME, ["mem-3"])
    learn(store, *measured)
    assert store.consolidated(ME, 1) == {"mem-4"}
    bob = store.users.add("bob", "fam-key", 1.0).id
    promote(store, 1, bob)
    store.set_consolidated(bob, 1, measured)
    assert store.consolidated(bob, 1) == frozenset()


@pytest.mark.parametrize("change", ["said again", "edited", "pinned", "superseded", "restored", "forgotten"])
def test_a_memory_that_is_said_again_or_changed_is_told_again(store: Store, change: str) -> None:
    promote(store, 2)
    rule, other = keep(store, "mem-1", "Call me Al."), keep(store, "mem-2", "Be brief.")
    learn(store, rule, other)
    learn(store, rule, version=2)
    if change == "said again":
        store.put_memory(replace(rule, id="mem-3", text="call me  Al"), 1.0)
    elif change == "edited":
        store.edit_memory(ME, rule.id, 1.0, text="Call me Alf.")
    elif change == "pinned":
        store.edit_memory(ME, rule.id, 1.0, pinned=True)
    elif change == "superseded":
        keep(store, "mem-3", "Call me Albert.")
    elif change == "restored":
        store.restore_memory(ME, rule.id, 9.0)
        keep(store, "mem-3", "Call me Albert.")
        learn(store, other)
        store.restore_memory(ME, rule.id, 9.0)
    else:
        store.forget(ME, [rule.id])
    assert store.consolidated(ME, 1) == {other.id}
    assert store.consolidated(ME, 2) == frozenset()


def test_being_used_changes_nothing(store: Store) -> None:
    rule = keep(store, "mem-1", "Be brief.")
    learn(store, rule)
    reply(store, 1, rule)
    assert store.consolidated(ME, 1) == {rule.id}
    assert store.memory(ME, rule.id).uses == 1
    assert store.exchange(ME, "chatcmpl-1").memory_ids == ()


def test_rows_go_with_the_user(store: Store) -> None:
    learn(store, keep(store, "mem-1", "Be brief."))
    assert store.erase(ME).finished
    assert store.connection.read("SELECT * FROM consolidated_memories") == []


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("correction", {"text": "Short."}),
        ("preference", {"text": "Short."}),
        ("rating", {"rating": -1}),
        ("regeneration", {"rating": -1, "trust": "inferred"}),
    ],
)
def test_two_replies_that_are_not_as_wanted_have_it_told_again(store: Store, kind: str, fields: dict[str, Any]) -> None:
    promote(store, 2)
    rule, other = keep(store, "mem-1", "Be brief."), keep(store, "mem-2", "Use metric units.")
    learn(store, rule, other)
    learn(store, rule, version=2)
    first, second = reply(store, 1, rule, other), reply(store, 2, rule)
    say(store, first, kind, **fields)
    say(store, first, "rating", rating=-1) if kind != "rating" else None  # the same reply counts once
    assert store.consolidated(ME, 1) == {rule.id, other.id}
    say(store, second, kind, **fields)
    assert store.consolidated(ME, 1) == {other.id}
    assert store.consolidated(ME, 2) == {rule.id}


def test_only_replies_that_followed_it_untold_under_that_version_count(store: Store) -> None:
    promote(store, 2)
    rule = keep(store, "mem-1", "Be brief.")
    learn(store, rule)
    learn(store, rule, version=2)
    about = [
        reply(store, 1, rule),
        reply(store, 2, rule, reason="always"),
        reply(store, 3, rule, version=2),
        reply(store, 4, rule, version=None),
        reply(store, 5),
    ]
    for each in about:
        say(store, each, text="Short.")
    assert store.consolidated(ME, 1) == store.consolidated(ME, 2) == {rule.id}


def test_praise_and_the_words_of_others_do_not_count(store: Store) -> None:
    rule = keep(store, "mem-1", "Be brief.")
    learn(store, rule)
    for number in range(4):
        about = reply(store, number, rule)
        say(store, about, "rating", rating=1)
        say(store, about, "correction", text="Short.", trust="untrusted")
        say(store, about, "rebuttal", text="Shorter, please.")
    assert store.consolidated(ME, 1) == {rule.id}


def test_a_guess_counts_once_it_is_confirmed(store: Store) -> None:
    rule = keep(store, "mem-1", "Be brief.")
    learn(store, rule)
    for number in range(2):
        say(store, reply(store, number, rule), text="Short.", state="pending")
    assert store.consolidated(ME, 1) == {rule.id}
    for number in range(2):
        assert store.consolidated(ME, 1) == {rule.id}
        store.settle(ME, f"fb-chatcmpl-{number}-correction", "active")
    assert store.consolidated(ME, 1) == frozenset()


@pytest.mark.parametrize(("between", "told"), [(LATEST - 2, True), (LATEST - 1, False)])
def test_what_was_long_ago_no_longer_counts(store: Store, between: int, told: bool) -> None:
    rule = keep(store, "mem-1", "Be brief.")
    learn(store, rule)
    say(store, reply(store, 0, rule), text="Short.")
    for number in range(between):
        reply(store, 1 + number, rule)
    say(store, reply(store, 1 + between, rule), text="Short.")
    assert (store.consolidated(ME, 1) == frozenset()) is told


def test_a_correction_that_says_the_rule_again_has_it_told_at_once(store: Store) -> None:
    rule = keep(store, "mem-1", "Be brief.")
    learn(store, rule)
    about = reply(store, 1, rule)
    store.add_feedback(
        Feedback("fb-1", ME, 50.0, "correction", about, "Short.", note="Be brief."), [replace(rule, id="mem-9")]
    )
    assert store.consolidated(ME, 1) == frozenset()


# ---- recall ----


def turns(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


def recalled(store: Store, text: str, *carried: Memory, budget: int = 1000) -> tuple[list[str], list[tuple[str, str]]]:
    """The ids shown, and all that applied with its reason."""
    found = Recaller(store).recall(
        ME, turns(text), budget_tokens=budget, count_tokens=lambda _: 10, carried=frozenset(each.id for each in carried)
    )
    assert found.tokens == 10 * len(found.memories)
    assert set(found.learnt) == {used.memory_id for used in found.used} - {memory.id for memory in found.memories}
    assert found.untold().memories == ()
    assert found.untold().learnt == found.learnt
    assert len(found.untold().used) == len(found.learnt)
    return [memory.id for memory in found.memories], [(used.memory_id, used.reason) for used in found.used]


def test_what_is_carried_is_named_and_not_shown(store: Store) -> None:
    rule, other = keep(store, "mem-1", "Be brief."), keep(store, "mem-2", "Use metric units.")
    assert recalled(store, "Hello", rule) == ([other.id], [(other.id, "always"), (rule.id, "learnt")])
    assert recalled(store, "Hello", rule, other)[0] == []
    assert recalled(store, "Hello")[0] == [other.id, rule.id]


def test_what_is_carried_takes_no_room(store: Store) -> None:
    rules = [keep(store, f"mem-{number}", f"Rule {number}.") for number in range(4)]
    shown, used = recalled(store, "Hello", *rules[:2], budget=20)
    assert shown == ["mem-3", "mem-2"]
    assert sorted(id for id, reason in used if reason == "learnt") == ["mem-0", "mem-1"]
    # Also those that come after the budget is used up.
    shown, used = recalled(store, "Hello", rules[0], budget=10)
    assert shown == ["mem-3"]
    assert used[1:] == [("mem-0", "learnt")]


def test_a_pinned_memory_is_shown_all_the_same(store: Store) -> None:
    rule = keep(store, "mem-1", "Be brief.", pinned=True)
    assert recalled(store, "Hello", rule) == ([rule.id], [(rule.id, "pinned")])


def test_examples_are_carried_but_for_the_very_same_prompt(store: Store) -> None:
    asked = [
        f"Describe the lighthouse keeper's wooden boat in {season}"
        for season in ("spring", "summer", "autumn", "winter")
    ]
    examples = [
        keep(store, f"mem-{number}", f"Reply {number}.", kind="example", prompt=prompt, scope="related")
        for number, prompt in enumerate(asked)
    ]
    shown, used = recalled(store, asked[0], *examples)
    assert (shown, used[0]) == (["mem-0"], ("mem-0", "same prompt"))
    assert [reason for _, reason in used[1:]] == ["learnt"] * MAX_EXAMPLES
    # They leave the places of examples to those that are not carried.
    shown, used = recalled(store, "Describe the lighthouse keeper's wooden boat at night", *examples[:2])
    assert set(shown) == {"mem-2", "mem-3"}
    assert [reason for _, reason in used[2:]] == ["learnt"] * MAX_EXAMPLES
