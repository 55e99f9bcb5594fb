"""Which slot a request gets, and what of it is reused."""

from pathlib import Path

from familiar.daemon.adapter_cache import AdapterKey
from familiar.daemon.generation import Generation
from familiar.daemon.sampling import Sampling
from familiar.daemon.slots import Owner, Place, Request, Slot, choose

ME = Owner(None, "me")
ADAPTED = Owner(AdapterKey(Path("/a.gguf"), 1, 1), "me")


def request(prompt: list[int], owner: Owner = ME) -> Request:
    return Request(tuple(prompt), Sampling(), owner, Generation(len(prompt), lambda: None))


def test_a_conversations_next_turn_gets_its_slot_and_keeps_all_but_the_new() -> None:
    slots = [Slot(0), Slot(1, [1, 2, 3, 4], ME, last_used=9)]
    assert choose(slots, request([1, 2, 3, 4, 5, 6]), 32) == Place(slots[1], 4)


def test_the_last_prompt_token_is_always_evaluated() -> None:
    slots = [Slot(0, [1, 2, 3, 4], ME)]
    assert choose(slots, request([1, 2, 3]), 32) == Place(slots[0], 2)


def test_nothing_is_shared_between_users_adapters_or_the_nameless() -> None:
    for owner in (Owner(None, "you"), ADAPTED, Owner(None, "")):
        assert Slot(0, [1, 2, 3], owner).reusable(request([1, 2, 3, 4])) == 0
        assert Slot(0, [1, 2, 3], ME).reusable(request([1, 2, 3, 4], owner)) == 0
    assert Slot(0, [1, 2, 3], Owner(None, "")).reusable(request([1, 2, 3, 4], Owner(None, ""))) == 0
    assert Slot(0, [1, 2, 3], ADAPTED).reusable(request([1, 2, 3, 4], ADAPTED)) == 3


def test_a_short_common_beginning_does_not_cost_another_conversation_its_cache() -> None:
    slots = [Slot(0, [1, 2, *range(10, 30)], ME, last_used=9), Slot(1)]
    assert choose(slots, request([1, 2, 50, 51]), 32) == Place(slots[1], 0)


def test_the_same_prompt_again_takes_its_slot_however_long_the_first_reply_was() -> None:
    slots = [Slot(0, [1, 2, 3, *range(10, 30)], ME, last_used=9), Slot(1)]
    assert choose(slots, request([1, 2, 3]), 32) == Place(slots[0], 2)


def test_otherwise_the_slot_longest_idle_is_taken_and_empty_ones_first() -> None:
    slots = [Slot(0, [7], ME, last_used=2), Slot(1, [8], ME, last_used=1), Slot(2, [9], Owner(None, ""), last_used=5)]
    assert choose(slots, request([1, 2, 3]), 32) == Place(slots[2], 0)
    assert choose(slots[:2], request([1, 2, 3]), 32) == Place(slots[1], 0)
