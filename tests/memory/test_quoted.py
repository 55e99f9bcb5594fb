"""Wishes with one quoted value: which end one another, and the examples that show the old value."""

from pathlib import Path

import pytest

from familiar.memory.quoted import quoted_value
from familiar.memory.store import Store
from familiar.memory.types import Memory

ENDINGS = (
    'I would be glad if you parted from me with "{}" in every answer.',
    'Never answer me without a "{}" up front.',
)


@pytest.mark.parametrize("wish", ENDINGS)
def test_the_value_and_the_rest(wish: str) -> None:
    old, new = (
        quoted_value(wish.format("Tot ziens!")),
        quoted_value(wish.replace(" you", " you now").format("Bis bald")),
    )
    assert old is not None
    assert new is not None
    assert old[0] == new[0]
    assert (old[1], new[1]) == ("Tot ziens!", "Bis bald")


@pytest.mark.parametrize(
    "text",
    [
        'Never use the word "utilise" in an answer.',
        'Mention "Acme" in every reply.',
        'End every answer with "Bye" or "Ciao".',
        'My dog is called "Rex".',
        "End every answer with a joke.",
        'Say "sir" in each reply.',
    ],
)
def test_wishes_of_which_many_hold_have_none(text: str) -> None:
    assert quoted_value(text) is None


def test_the_newer_value_ends_the_older_wish_and_its_examples(data_dir: Path) -> None:
    with Store.open(data_dir / "familiar.db") as store:
        user = store.default_user()

        def put(id: str, text: str, prompt: str | None = None) -> None:
            kind = "example" if prompt else "rule"
            store.put_memory(Memory(id, user, 1.0, kind, text, prompt), 1.0)  # type: ignore[arg-type]

        put("mem-old", ENDINGS[0].format("Tot ziens!"))
        put("mem-1", "Boil it. Tot ziens!", "How do I make tea?")
        put("mem-2", "Boil it for seven minutes.", "How do I boil an egg?")
        put("mem-3", "Tot ziens! is Dutch. Bis bald", "What does it mean?")
        put("mem-other", 'Begin every answer with "Moin".')
        put("mem-new", ENDINGS[0].replace("you", "you now", 1).format("Bis bald"))
        states = {memory.id: memory.state for memory in store.memories(user, states=("active", "superseded"))}
    assert states == {
        "mem-old": "superseded",
        "mem-1": "superseded",
        "mem-2": "active",
        "mem-3": "active",
        "mem-other": "active",
        "mem-new": "active",
    }
