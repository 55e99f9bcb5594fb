"""Which slot a request gets, and what of it is reused."""

from pathlib import Path

from familiar.daemon.adapter_cache import AdapterKey
from familiar.daemon.generation import Generation
from familiar.daemon.sampling import Sampling
from familiar.daemon.slots import Job, Owner, Place, Request, Slot, choose, least_worth_copying

ME = Owner(None, "me")
ADAPTED = Owner(AdapterKey(Path("/a.gguf"), 1, 1), "me")


def busy(number: int, tokens: list[int], owner: Owner = ME) -> Slot:
    running = request(tokens, owner)
    return Slot(number, tokens, owner, Job(running, None, [], 0))  # type: ignore[arg-type]


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


def test_a_long_beginning_is_copied_from_wherever_it_is_and_a_short_one_is_not() -> None:
    shared, mine = list(range(40)), [*range(40), 100, 101, 102]
    for donor in (busy(0, [*shared, *range(200, 300)]), Slot(0, [*shared, *range(200, 300)], ME, last_used=9)):
        slots = [donor, Slot(1), Slot(2)]
        assert choose(slots, request(mine), 32) == Place(slots[1], 40, donor)
        assert choose(slots, request(mine), 41) == Place(slots[1], 0)
    longest = Slot(2, [*mine, *range(300, 400)], ME)
    assert choose([busy(0, shared), Slot(1), longest], request([*mine, 5, 6]), 32) == Place(Slot(1), 43, longest)
    for other in (Owner(None, "you"), ADAPTED, Owner(None, "")):
        assert choose([busy(0, shared, other), Slot(1)], request(mine), 32) == Place(Slot(1), 0)
    assert [least_worth_copying(context) for context in (512, 2048, 8192)] == [32, 32, 128]


def test_what_the_slot_itself_has_of_the_prompt_is_kept_rather_than_as_much_copied() -> None:
    mine = [*range(40), 100, 101, 102]
    only = Slot(1, [*range(40), *range(200, 300)], ME)  # under half of it, but there is no other to take
    assert choose([busy(0, list(range(40))), only], request(mine), 32) == Place(only, 40)


def test_a_slot_beside_a_running_one_is_taken_before_others_that_are_as_good() -> None:
    empty = [Slot(0), Slot(1), Slot(2), busy(3, [1]), Slot(4)]
    assert choose(empty, request([7, 8]), 32).slot.id == 2
    idle = [Slot(i, [9], ME, last_used=i) for i in range(6)]
    idle[3] = busy(3, [1])
    assert choose(idle, request([7, 8]), 32).slot.id == 2  # of the longer idle half: 0, 1 and 2
    idle[2].last_used = 9
    assert choose(idle, request([7, 8]), 32).slot.id == 4
    idle[4].last_used = 9
    assert choose(idle, request([7, 8]), 32).slot.id == 0
