"""Work for a client that may leave: ``unless_gone`` by itself, with a client that is a function."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fastapi import Request, Response

from familiar.daemon.event_stream import CLIENT_CLOSED_REQUEST, unless_gone

Receive = Callable[[], Awaitable[dict[str, Any]]]


def client(leaves: asyncio.Event) -> Request:
    """A request whose body is read, and whose client leaves when told to."""

    async def receive() -> dict[str, Any]:
        await leaves.wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http", "headers": []}, receive)


async def answered(text: str | None, steps: int = 3) -> Response | None:
    for _ in range(steps):
        await asyncio.sleep(0)
    return None if text is None else Response(text)


def test_the_response_is_that_of_the_work() -> None:
    async def ask() -> None:
        response = await unless_gone(client(asyncio.Event()), answered("yes"))
        assert (response.status_code, response.body) == (200, b"yes")
        response = await unless_gone(client(asyncio.Event()), answered(None))
        assert response.status_code == CLIENT_CLOSED_REQUEST

    asyncio.run(ask())


def test_nobody_looks_out_for_the_client_any_more_once_it_is_answered() -> None:
    async def ask() -> None:
        leaves = asyncio.Event()
        await unless_gone(client(leaves), answered("yes"))
        leaves.set()
        await answered("a little later", steps=9)
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
        assert asyncio.all_tasks() == {task}

    asyncio.run(ask())


def test_work_for_a_client_that_leaves_is_cancelled_and_may_end_in_good_order() -> None:
    ended: list[str] = []

    async def work() -> Response:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            ended.append("in good order")
        return Response("never")

    async def ask() -> None:
        leaves = asyncio.Event()
        asyncio.get_running_loop().call_later(0.01, leaves.set)
        response = await unless_gone(client(leaves), work())
        assert (response.status_code, ended) == (CLIENT_CLOSED_REQUEST, ["in good order"])
        await asyncio.sleep(0.01)  # the task is not cancelled: it goes on

    asyncio.run(ask())


def test_a_client_that_leaves_as_the_work_is_done_leaves_no_cancellation_behind() -> None:
    async def ask(steps: int) -> None:
        leaves = asyncio.Event()
        leaves.set()
        response = await unless_gone(client(leaves), answered("yes", steps))
        assert response.status_code in (200, CLIENT_CLOSED_REQUEST)
        await answered("later", steps=9)

    for steps in range(8):
        asyncio.run(ask(steps))


def test_an_error_of_the_work_is_raised() -> None:
    async def work() -> Response:
        await asyncio.sleep(0)
        raise ValueError("no")

    async def ask() -> None:
        with pytest.raises(ValueError, match="no"):
            await unless_gone(client(asyncio.Event()), work())

    asyncio.run(ask())


@pytest.mark.parametrize("also_gone", [False, True])
def test_a_request_that_is_cancelled_from_outside_is_not_answered(also_gone: bool) -> None:
    async def ask() -> None:
        leaves = asyncio.Event()
        asking = asyncio.ensure_future(unless_gone(client(leaves), asyncio.sleep(60)))
        await answered("begun")
        if also_gone:
            leaves.set()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(ask())
