"""Which turns of a long conversation are left out, and in how few attempts."""

from collections.abc import Sequence

import pytest

from familiar.daemon.history import trimmed
from familiar.memory.types import Message


def conversation(turns: int) -> list[Message]:
    said: list[Message] = [{"role": "system", "content": "Be kind."}]
    for turn in range(turns):
        said += [{"role": "user", "content": f"Question {turn}"}, {"role": "assistant", "content": f"Answer {turn}"}]
    return [*said, {"role": "user", "content": "And now?"}]


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 8, 50])
def test_the_fewest_oldest_turns_go(turns: int) -> None:
    messages = conversation(turns)
    for most in range(1, len(messages) + 1):
        kept = trimmed(messages, lambda said, most=most: len(said) <= most)  # type: ignore[misc]
        left_out = len(messages) - len(kept)
        assert kept == [messages[0], *messages[1 + left_out :]]
        assert kept[1]["role"] == "user"
        longer = len(kept) + 2 if left_out else len(messages) + 1
        assert (len(kept) <= most < longer) or kept == [messages[0], messages[-1]]


def test_an_answer_in_front_goes_with_the_first_turn() -> None:
    messages = [Message(role="assistant", content="Welcome."), *conversation(3)[1:]]
    assert trimmed(messages, lambda said: len(said) < len(messages)) == messages[1:]


def test_a_long_history_is_not_tried_turn_by_turn() -> None:
    tried = []

    def fits(said: Sequence[Message]) -> bool:
        tried.append(len(said))
        return len(said) <= 300

    kept = trimmed(conversation(4000), fits)
    assert len(kept) == 300
    assert len(tried) < 20
