"""A reply that a client changed is told from one that its user changed, and from another model's."""

import pytest

from familiar.feedback.edits import Reading, assistant_turns, is_users_own, read
from familiar.memory.history import history_key
from familiar.memory.replies import Reply
from familiar.memory.types import Message

LONG = (
    "The Nile is about 6,650 km long. It flows through eleven countries. Most of its water comes from the Ethiopian "
    "highlands."
)


def reply(text: str, finish_reason: str = "stop", id: str = "chatcmpl-1") -> Reply:
    return Reply(id, "conv-1", 1.0, "familiar", text, finish_reason)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("Lyon", "Paris"),
        ("Lyon.", "It is Paris."),
        ("It was founded in 1957.", "It was founded in 1958."),
        (LONG, LONG.replace("6,650", "6,693")),
        (LONG, "The Nile is about 6,650 km long."),
        (LONG, LONG + " It ends in the Mediterranean."),
        (LONG, LONG.replace("It flows through eleven countries.", "Eleven states share it.")),
        ("Great question! The answer is 12.", "The answer is 12."),
        ("Hello 😀", "Hello"),
        ("东京是日本的首都,人口很多。", "东京是日本的首都,人口不多。"),
    ],
)
def test_edits(given: str, shown: str) -> None:
    assert read(shown, [reply("This is altogether something else.", id="chatcmpl-2"), reply(given)]) == (
        Reading.EDITED,
        reply(given),
    )


@pytest.mark.parametrize(
    ("given", "finish_reason", "shown"),
    [
        ("Paris.", "stop", "Paris."),
        ("  Paris,\n\nof course. ", "stop", "Paris, of course."),
        ("<think>France… Paris.</think>\n\nParis.", "stop", "Paris."),
        ("France… Paris.</think>Paris.", "stop", "Paris."),
        ("Paris.", "stop", "<think>Let me see.</think>Paris."),
        ("Paris.", "stop", '<details type="reasoning" done="true"><summary>Thought</summary>x</details>\nParis.'),
        ("It’s “Paris” – really", "stop", 'It\'s "Paris" - really'),
        (LONG, "cancelled", "The Nile is about 6,650 km long."),
        (LONG, "length", LONG[:40]),
        (LONG, "stop", LONG[:40]),
        (LONG, "stop", LONG[:40] + "…"),
        (LONG[:60], "length", LONG),
        ("Paris.", "stop", "   "),
    ],
)
def test_what_clients_do_is_no_edit(given: str, finish_reason: str, shown: str) -> None:
    assert read(shown, [reply(given, finish_reason)]) == (Reading.AS_GIVEN, None)


def test_any_of_several_replies_may_come_back() -> None:
    given = [reply("Paris.", id="chatcmpl-1:1"), reply("Lyon.")]
    assert read("Lyon.", given) == read("Paris.", given) == (Reading.AS_GIVEN, None)
    assert read("It is Nice.", [reply("It is Lyon."), reply("No idea at all.")])[1] == reply("It is Lyon.")


def test_a_correction_that_is_stored_is_no_edit() -> None:
    assert read("Paris", [reply("Lyon")], ["Nice."]) == (Reading.EDITED, reply("Lyon"))
    assert read("Paris", [reply("Lyon")], ["Paris "]) == (Reading.AS_GIVEN, None)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (LONG, "I would say that it is among the longest rivers on Earth, with more than six thousand kilometres."),
        (LONG, "Paris."),
        ("Hello! How can I help you today?", "Ahoy! What be ye wanting, matey, on this fine morning?"),
        ("Lyon", "It depends on what you mean by capital, since there were several over the centuries."),
        ("", "Paris."),
    ],
)
def test_what_is_not_alike_is_another_models(given: str, shown: str) -> None:
    assert read(shown, [reply(given)]) == (Reading.FOREIGN, None)
    assert read(shown, []) == (Reading.FOREIGN, None)


def test_a_short_reply_in_a_mixed_conversation_must_be_alike() -> None:
    assert read("Paris", [reply("Lyon")], mixed=True) == (Reading.FOREIGN, None)
    assert read("It is Paris.", [reply("It is Lyon.")], mixed=True) == (Reading.EDITED, reply("It is Lyon."))


def test_assistant_turns() -> None:
    call = {"id": "call-1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages: list[Message] = [
        {"role": "assistant", "content": "Welcome!"},
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "1", "tool_call_id": "call-1"},
        {"role": "assistant", "content": "First"},
        {"role": "user", "content": "Two"},
        {"role": "assistant", "content": " "},
        {"role": "user", "content": "Three"},
        {"role": "assistant", "content": "Third"},
    ]
    turns = assistant_turns(messages)
    assert [turn.text for turn in turns] == ["First", "Third"]
    assert [turn.history_key for turn in turns] == [history_key(messages[:2]), history_key(messages)]


def test_what_is_added_must_not_be_taken_from_elsewhere() -> None:
    page = "In 2024 the river carried 2,830 cubic metres a second at Aswan, the survey of the ministry says."
    given = "The Nile is long. I do not know more."
    assert not is_users_own(f"The Nile is long. {page}", given, [page])
    assert is_users_own("The Nile is long. It carries a lot of water, as I saw in Aswan last year.", given, [page])
    assert is_users_own("The Nile is long. 2,830 cubic metres", given, [page]), "too short to be called a paste"
    assert is_users_own("The Nile is long.", given, [page])
