"""A process that writes corrections into a store for as long as it lives, and says each id once it is acknowledged.

Run by ``test_durability``: ``python writer.py STORE PREFIX COUNT``.
"""

import sys
from pathlib import Path

from familiar.memory.store import Store
from familiar.memory.types import Exchange, Feedback, Memory, Message


def main(path: Path, prefix: str, count: int) -> None:
    """Write ``count`` exchanges, each with a correction that makes two memories, named ``PREFIX-0``, ``PREFIX-1``, …

    Three exchanges each are one conversation. One memory is an example; the other is a statement that ends the one
    before it.
    """
    store = Store.open(path)
    user_id = store.default_user()
    print("open", flush=True)
    for number in range(count):
        name = f"{prefix}-{number}"
        said = [f"question {prefix}-{earlier}" for earlier in range(number - number % 3, number + 1)]
        turns: tuple[Message, ...] = tuple({"role": "user", "content": text} for text in said)
        store.add_exchange(Exchange(f"chatcmpl-{name}", user_id, number, "familiar", turns, "wrong"))
        made = [
            Memory(f"mem-{name}", user_id, number, "example", f"right {name}", said[-1], f"fb-{name}"),
            Memory(f"mem-{name}-at", user_id, number, "fact", f"{prefix} lives in Town{number}", None, f"fb-{name}"),
        ]
        feedback = Feedback(f"fb-{name}", user_id, number, "correction", f"chatcmpl-{name}", made[0].text, key=name)
        store.add_feedback(feedback, made)
        print(name, flush=True)
    store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
