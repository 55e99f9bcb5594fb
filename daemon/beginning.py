"""Queueing a request's choices and waiting for the beginning of its reply, with the one fall-back that there is."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import TypeVar

from familiar.daemon.generation import Generation
from familiar.daemon.outbox import Mailbox, Outbox
from familiar.daemon.reply import Choices
from familiar.daemon.served_adapters import Served
from familiar.memory.errors import BadFile

Plan = TypeVar("Plan")


async def begin(
    outbox: Outbox,
    workers: Executor,
    start: Callable[[Mailbox, Served | None], tuple[Plan, Sequence[Sequence[Generation]]]],
    fall_back: Callable[[BadFile], Served],
) -> tuple[Plan, Choices]:
    """Return what was planned and its choices, once there is something to read of them.

    ``start`` plans and queues, under the adapter that it is given, if any; it and ``fall_back`` run in a worker thread.
    Where the adapter turns out to be unusable, ``fall_back`` gives what to serve instead, or raises. Raises whatever
    these two raise, and what the engine raised in place of a reply.
    """
    loop = asyncio.get_running_loop()
    served: Served | None = None
    while True:
        mailbox = outbox.open()
        try:
            plan, generations = await loop.run_in_executor(workers, start, mailbox, served)
            choices = Choices(outbox, mailbox, generations)
            await choices.started()
            return plan, choices
        except BadFile as error:
            outbox.close(mailbox)
            if served is not None:
                raise
            served = await loop.run_in_executor(workers, fall_back, error)
        except BaseException:
            outbox.close(mailbox)
            raise
