"""When what the engine's thread posts reaches the event loop, under the test's clock."""

import asyncio
from collections.abc import Callable
from typing import Any

from familiar.daemon.generation import Chunk
from familiar.daemon.outbox import TOGETHER_S, Mailbox, Outbox


def chunk(text: str, finish_reason: Any = None) -> Chunk:
    return Chunk(text, finish_reason)


class Bench:
    """An outbox whose clock stands still until ``now_s`` is set."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.outbox = Outbox(timer=lambda: self.now_s)

    def step(self, *posted: tuple[Mailbox, Any]) -> None:
        """What one step of the engine does: an event for each of some replies, then ``flush``."""
        for mailbox, event in posted:
            mailbox.post(0, event)
        self.outbox.flush()


async def arrived(mailbox: Mailbox) -> list[str]:
    """The texts that are there by now, without waiting for more."""
    await asyncio.sleep(0)  # what was handed to the loop is delivered
    if not mailbox._arrived:
        return []
    return [event.text for _, event in await mailbox.take() if isinstance(event, Chunk)]


def test_tokens_that_come_faster_than_a_screen_shows_them_go_together() -> None:
    async def run() -> None:
        bench = Bench()
        reply = bench.outbox.open()
        bench.step((reply, chunk("a")))
        assert await arrived(reply) == ["a"]  # a beginning does not wait
        for text in "bc":
            bench.now_s += TOGETHER_S / 3
            bench.step((reply, chunk(text)))
            assert await arrived(reply) == []
        bench.now_s += TOGETHER_S / 2
        bench.step((reply, chunk("d")))
        assert await arrived(reply) == ["b", "c", "d"]
        bench.now_s += TOGETHER_S * 1.5  # slower than that: each by itself
        bench.step((reply, chunk("e")))
        assert await arrived(reply) == ["e"]

    asyncio.run(run())


def test_the_end_of_a_reply_an_error_and_anothers_beginning_do_not_wait() -> None:
    async def run() -> None:
        for last in (chunk("z", "stop"), None, ValueError("broken")):
            bench = Bench()
            reply = bench.outbox.open()
            bench.step((reply, chunk("a")))
            bench.step((reply, chunk("b")))
            assert await arrived(reply) == ["a"]
            bench.step((reply, last))
            await asyncio.sleep(0)
            assert [event for _, event in await reply.take()] == [chunk("b"), last]
        bench = Bench()
        first, second = bench.outbox.open(), bench.outbox.open()
        bench.step((first, chunk("a")))
        bench.step((first, chunk("b")), (second, chunk("A")))
        assert await arrived(first) == ["a", "b"]
        assert await arrived(second) == ["A"]

    asyncio.run(run())


def test_the_loop_is_woken_once_for_what_a_step_produced() -> None:
    async def run() -> None:
        bench, woken = Bench(), []
        loop = asyncio.get_running_loop()
        call_soon: Callable[..., Any] = loop.call_soon_threadsafe

        def noting(*given: Any, **more: Any) -> Any:
            woken.append(1)
            return call_soon(*given, **more)

        loop.call_soon_threadsafe = noting  # type: ignore[method-assign,assignment]
        replies = [bench.outbox.open() for _ in range(8)]
        bench.step(*((reply, chunk("a")) for reply in replies))
        assert [await arrived(reply) for reply in replies] == [["a"]] * 8
        bench.outbox.flush()  # with nothing posted
        assert len(woken) == 1

    asyncio.run(run())
