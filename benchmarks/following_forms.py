"""Other forms in which the same memories could be put before the model: what ``following.py`` compares. Pure.

A form turns the memories that were recalled and a conversation into the messages that the model sees.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from familiar.daemon.prompt import memory_block, with_memories
from familiar.memory.types import Memory, Message

Form = Callable[[Sequence[Memory], Sequence[Message]], list[Message]]

_HEADER = memory_block(())
_RIGHT_REPLY = 'To "{prompt}" the right reply was "{text}"'


def _shipped(memories: Sequence[Memory], messages: Sequence[Message]) -> list[Message]:
    """What the service does."""
    return with_memories(messages, memories)


def _block(
    memories: Sequence[Memory], messages: Sequence[Message], *, header: str = _HEADER, example: str = _RIGHT_REPLY
) -> list[Message]:
    """Another header, or another line for a corrected example."""
    if not memories:
        return list(messages)
    lines = [example.format(prompt=m.prompt, text=m.text) if m.kind == "example" else m.text for m in memories]
    return [_system("\n- ".join([header, *lines])), *messages]


def _example_as_turns(memories: Sequence[Memory], messages: Sequence[Message]) -> list[Message]:
    """Corrected examples as an earlier conversation, everything else in the block."""
    turns: list[Message] = []
    for each in memories:
        if each.kind == "example":
            turns += [Message(role="user", content=each.prompt or ""), Message(role="assistant", content=each.text)]
    return with_memories([*turns, *messages], [each for each in memories if each.kind != "example"])


def _example_alone(memories: Sequence[Memory], messages: Sequence[Message]) -> list[Message]:
    """Where there is a corrected example, nothing else."""
    return with_memories(messages, [each for each in memories if each.kind == "example"] or memories)


def _best_last(memories: Sequence[Memory], messages: Sequence[Message]) -> list[Message]:
    return with_memories(messages, memories[::-1])


def _first_3(memories: Sequence[Memory], messages: Sequence[Message]) -> list[Message]:
    return with_memories(messages, memories[:3])


FORMS: Mapping[str, Form] = {
    "shipped": _shipped,
    "example_reply_only": partial(_block, example="{text}"),
    "example_prompt_and_reply": partial(_block, example="{prompt} {text}"),
    "example_when_asked_say": partial(_block, example='When asked "{prompt}" say "{text}"'),
    "example_as_turns": _example_as_turns,
    "example_alone": _example_alone,
    "header_rules": partial(_block, header="Follow these rules:"),
    "header_know": partial(_block, header="What you know:"),
    "best_last": _best_last,
    "first_3": _first_3,
}
"""Asked in a conversation of one turn, without a system message of the client's."""


def _system_first(memories: Sequence[Memory], messages: Sequence[Message]) -> list[Message]:
    if not memories:
        return list(messages)
    return [_system(f"{memory_block(memories)}\n\n{messages[0]['content']}"), *messages[1:]]


def _before_last_turn(memories: Sequence[Memory], messages: Sequence[Message]) -> list[Message]:
    if not memories:
        return list(messages)
    return [*messages[:-1], _system(memory_block(memories)), messages[-1]]


def _in_last_turn(memories: Sequence[Memory], messages: Sequence[Message]) -> list[Message]:
    if not memories:
        return list(messages)
    return [*messages[:-1], Message(role="user", content=f"{memory_block(memories)}\n\n{messages[-1]['content']}")]


def _system(content: str) -> Message:
    return Message(role="system", content=content)


POSITIONS: Mapping[str, Form] = {
    "system_last": _shipped,
    "system_first": _system_first,
    "before_last_turn": _before_last_turn,
    "in_last_turn": _in_last_turn,
}
"""Where the block stands, in a conversation that goes on from ``EARLIER``. ``system_last`` is what the service does."""

EARLIER: tuple[Message, ...] = (
    _system("You are a helpful assistant."),
    Message(role="user", content="Good morning."),
    Message(role="assistant", content="Good morning. I hope your day goes well."),
)
