"""What the user says becomes rows, or a message that says what is wrong with it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from familiar.feedback import signals
from familiar.feedback.signals import Origin
from familiar.memory.errors import FamiliarError, InvalidInput
from familiar.memory.types import Exchange, Feedback, Memory, Message

TURNS: tuple[Message, ...] = (
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Who wrote Emma?"},
    {"role": "assistant", "content": "Austen."},
    {"role": "user", "content": " And Hamlet? "},
)
EXCHANGE = Exchange("chatcmpl-1", 7, 1.0, "familiar", TURNS, "Marlowe.")


def test_correction_makes_an_example_and_a_rule() -> None:
    signal = signals.correction(
        Origin("fb-1", 5.0, "chat", "inferred"), EXCHANGE, " Shakespeare.\n", " Full sentences, please "
    )
    assert signal.feedback == Feedback(
        "fb-1", 7, 5.0, "correction", "chatcmpl-1", "Shakespeare.", None, "Full sentences, please", "chat", "inferred"
    )
    assert signal.memories == (
        Memory("mem-1", 7, 5.0, "example", "Shakespeare.", "And Hamlet?", "fb-1", "related", source="chat"),
        Memory("mem-1-rule", 7, 5.0, "rule", "Full sentences, please", None, "fb-1", "always", source="chat"),
    )


@pytest.mark.parametrize("note", [None, "", "  \n"])
def test_correction_without_a_note_makes_an_example_only(note: str | None) -> None:
    signal = signals.correction(Origin("fb-1", 5.0), EXCHANGE, "Shakespeare.", note)
    assert signal.feedback.note is None
    assert [memory.kind for memory in signal.memories] == ["example"]


def test_correction_of_a_reply_to_no_user_message_makes_no_example() -> None:
    alone = Exchange("chatcmpl-1", 7, 1.0, "familiar", ({"role": "system", "content": "Greet."},), "Yo")
    assert signals.correction(Origin("fb-1", 5.0), alone, "Good day.").memories == ()


def test_rating() -> None:
    signal = signals.rating(Origin("fb-1", 5.0), EXCHANGE, -1)
    assert (signal.feedback.kind, signal.feedback.rating, signal.feedback.text) == ("rating", -1, None)
    assert signal.memories == ()
    with_note = signals.rating(Origin("fb-1", 5.0), EXCHANGE, 1, "More of this")
    assert [memory.text for memory in with_note.memories] == ["More of this"]


def test_preference_makes_no_example() -> None:
    signal = signals.preference(Origin("fb-1", 5.0), EXCHANGE, "Shakespeare did.")
    assert (signal.feedback.kind, signal.feedback.text) == ("preference", "Shakespeare did.")
    assert signal.memories == ()
    with_note = signals.preference(Origin("fb-1", 5.0), EXCHANGE, "Shakespeare did.", "Name names")
    assert [memory.kind for memory in with_note.memories] == ["rule"]


def test_rule() -> None:
    signal = signals.rule(Origin("fb-9", 5.0), 7, " Use metric units ")
    assert signal.feedback == Feedback("fb-9", 7, 5.0, "rule", text="Use metric units")
    assert signal.memories == (Memory("mem-9", 7, 5.0, "rule", "Use metric units", None, "fb-9", "always"),)


def test_what_is_stated_gets_its_kind_and_scope_from_its_words_unless_they_are_given() -> None:
    (fact,) = signals.rule(Origin("fb-9", 5.0, "chat"), 7, "My dog is called Rex").memories
    assert (fact.kind, fact.scope, fact.source) == ("fact", "related", "chat")
    (bound,) = signals.rule(Origin("fb-9", 5.0), 7, "Sign my emails with Al").memories
    assert (bound.kind, bound.scope) == ("rule", "related")
    (given,) = signals.rule(
        Origin("fb-9", 5.0), 7, "My dog is called Rex", kind="rule", scope="conversation", conversation_id="conv-1"
    ).memories
    assert (given.kind, given.scope, given.conversation_id) == ("rule", "conversation", "conv-1")
    (noted,) = signals.rating(Origin("fb-1", 5.0), EXCHANGE, -1, "I live in Rome").memories
    assert (noted.kind, noted.scope) == ("fact", "related")


@pytest.mark.parametrize("text", ["", " ", "\n\t "])
def test_empty_text_is_refused(text: str) -> None:
    for make in (signals.correction, signals.preference):
        with pytest.raises(InvalidInput, match="empty: write one") as wrong:
            make(Origin("fb-1", 5.0), EXCHANGE, text)
        assert wrong.value.param == "text"
    with pytest.raises(InvalidInput, match="The rule is empty"):
        signals.rule(Origin("fb-1", 5.0), 7, text)


def test_unchanged_text_is_refused() -> None:
    with pytest.raises(InvalidInput, match="same as the original") as wrong:
        signals.correction(Origin("fb-1", 5.0), EXCHANGE, " Marlowe.\n")
    assert wrong.value.param == "text"
    with pytest.raises(InvalidInput, match="same as the original"):
        signals.preference(Origin("fb-1", 5.0), EXCHANGE, "Marlowe.")


def test_long_text_is_refused_and_says_by_how_much() -> None:
    assert signals.correction(Origin("fb-1", 5.0), EXCHANGE, "x" * 32_000).feedback.text == "x" * 32_000
    with pytest.raises(InvalidInput, match=r"has 32,001 characters but 32,000 is the most"):
        signals.correction(Origin("fb-1", 5.0), EXCHANGE, "x" * 32_001)
    with pytest.raises(InvalidInput) as wrong:
        signals.correction(Origin("fb-1", 5.0), EXCHANGE, "fine", "n" * 32_001)
    assert wrong.value.param == "note"


@pytest.mark.parametrize("value", [0, 2, -2, 5])
def test_rating_is_plus_or_minus_one(value: int) -> None:
    with pytest.raises(InvalidInput, match=f"not {value}") as wrong:
        signals.rating(Origin("fb-1", 5.0), EXCHANGE, value)
    assert wrong.value.param == "rating"


@given(text=st.text(), note=st.none() | st.text())
def test_any_text_is_kept_stripped_or_refused(text: str, note: str | None) -> None:
    try:
        signal = signals.correction(Origin("fb-1", 5.0), EXCHANGE, text, note)
    except FamiliarError:
        assert text.strip() in ("", "Marlowe.")
    else:
        assert signal.feedback.text == text.strip()
        assert len(signal.memories) == (2 if note and note.strip() else 1)
