"""How memories are put before the model. Pure.

The built-in model is trained on exactly this block, so its wording is part of the format. ``benchmarks/following.py``
compares it with others, the same memories in each. A corrected example, as it is written here, is followed in 63 % of
the requests; as ``When asked "…" say "…"`` in 57 %, as the reply alone in 41 %, as an earlier turn of the conversation
in 19 %. Under a client's own system message, all memories are followed in 75 %, whether the block comes after its text
or before; in a message before the last turn in 59 %, inside that turn in 54 %. Another header, or the best memory last,
changes two replies of 183 at most.
"""

from collections.abc import Callable, Sequence

from familiar.memory.types import Memory, Message


def memory_block(memories: Sequence[Memory]) -> str:
    """Return the block that tells the model what to remember, one line per memory; texts are kept as they are."""
    return "\n".join(["Remember about this user:", *(_line(memory) for memory in memories)])


def _line(memory: Memory) -> str:
    if memory.kind == "example":
        return f'- To "{memory.prompt or ""}" the right reply was "{memory.text}"'
    return f"- {memory.text}"


def line_counter(count: Callable[[str], int]) -> Callable[[Memory], int]:
    """Return what says how many tokens a memory's own line takes in the block; ``count`` says how many a text has."""
    header = count(memory_block(()))
    return lambda memory: count(memory_block((memory,))) - header


def with_memories(messages: Sequence[Message], memories: Sequence[Memory]) -> list[Message]:
    """Return the messages with the memories in their system message, after a blank line.

    A system message is added where there is none. Without memories the messages are returned as they are. The given
    messages are not changed.
    """
    if not memories:
        return list(messages)
    block = memory_block(memories)
    for index, message in enumerate(messages):
        if message["role"] == "system":
            content = f"{message['content']}\n\n{block}" if message["content"].strip() else block
            return [*messages[:index], Message(role="system", content=content), *messages[index + 1 :]]
    return [Message(role="system", content=block), *messages]
