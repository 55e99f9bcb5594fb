"""The block that the built-in model is trained on, to the letter."""

from familiar.daemon.prompt import memory_block, with_memories
from familiar.memory.types import Memory, Message

RULE = Memory(id="mem-1", user_id=1, created_at=0.0, kind="rule", text="Use metric units.")
EXAMPLE = Memory(
    id="mem-2",
    user_id=1,
    created_at=1.0,
    kind="example",
    text="Tea:\n- water\n- leaves",
    prompt="How is tea made?\nShort.",
)
BLOCK = (
    "Remember about this user:\n"
    "- Use metric units.\n"
    '- To "How is tea made?\nShort." the right reply was "Tea:\n- water\n- leaves"'
)
HELLO = Message(role="user", content="Hello")


def test_block_has_a_line_per_memory_and_keeps_texts_of_many_lines() -> None:
    assert memory_block([RULE, EXAMPLE]) == BLOCK


def test_block_of_nothing_is_its_first_line() -> None:
    assert memory_block([]) == "Remember about this user:"


def test_an_example_without_a_prompt_is_still_a_line() -> None:
    bare = Memory(id="mem-3", user_id=1, created_at=0.0, kind="example", text="Yes.")
    assert memory_block([bare]).endswith('\n- To "" the right reply was "Yes."')


def test_memories_follow_the_clients_system_message_after_a_blank_line() -> None:
    messages = [Message(role="system", content="Be brief."), HELLO]
    assert with_memories(messages, [RULE, EXAMPLE]) == [
        {"role": "system", "content": "Be brief.\n\n" + BLOCK},
        {"role": "user", "content": "Hello"},
    ]
    assert messages[0]["content"] == "Be brief."


def test_a_system_message_is_added_where_there_is_none_or_an_empty_one() -> None:
    expected = [{"role": "system", "content": BLOCK}, HELLO]
    assert with_memories([HELLO], [RULE, EXAMPLE]) == expected
    assert with_memories([Message(role="system", content=" \n"), HELLO], [RULE, EXAMPLE]) == expected


def test_a_later_system_message_is_used_in_its_place() -> None:
    messages = [HELLO, Message(role="system", content="Be brief.")]
    assert with_memories(messages, [RULE]) == [
        HELLO,
        {"role": "system", "content": "Be brief.\n\nRemember about this user:\n- Use metric units."},
    ]


def test_no_memories_change_nothing() -> None:
    assert with_memories([HELLO], []) == [HELLO]
