"""A process that writes corrections into a store for as long as it lives, and says each id once it is acknowledged.

Run by ``test_durability``: ``python writer.py STORE PREFIX COUNT``.
"""

import sys
from pathlib import Path

from familiar.memory.store import Store
from familiar.memory.types import Exchange, Feedback, Memory


def main(path: Path, prefix: str, count: int) -> None:
    """Write ``count`` exchanges, each with a correction and its memory, named ``PREFIX-0``, ``PREFIX-1``, …"""
    store = Store.open(path)
    user_id = store.default_user()
    print("open", flush=True)
    for number in range(count):
        name = f"{prefix}-{number}"
        turn = {"role": "user", "content": f"question {name}"}
        store.add_exchange(Exchange(f"chatcmpl-{name}", user_id, number, "familiar", (turn,), "wrong"))  # type: ignore[arg-type]
        memory = Memory(f"mem-{name}", user_id, number, "example", f"right {name}", turn["content"], f"fb-{name}")
        store.add_feedback(
            Feedback(f"fb-{name}", user_id, number, "correction", f"chatcmpl-{name}", memory.text), [memory]
        )
        print(name, flush=True)
    store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
