"""Parting: groups whole, sides stable, and a plain word when there is too little."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from familiar.feedback.dataset import split
from familiar.feedback.pairs import Example
from familiar.memory.errors import NotEnoughSignals


def example(number: int, group: str) -> Example:
    return Example(f"fb-{number}", ({"role": "user", "content": group},), f"right {number}", "wrong", group)


def apart(count: int, start: int = 0) -> list[Example]:
    return [example(number, f"group {number}") for number in range(start, start + count)]


GROUPED = st.lists(st.integers(0, 12), min_size=1, max_size=40).map(
    lambda groups: [example(number, f"group {group}") for number, group in enumerate(groups)]
)


@given(examples=GROUPED, seed=st.integers(0, 5), share=st.floats(0.05, 0.5))
def test_no_group_is_on_both_sides(examples: list[Example], seed: int, share: float) -> None:
    try:
        data = split(examples, seed=seed, held_out_share=share)
    except NotEnoughSignals:
        sizes = [sum(other.group == one.group for other in examples) for one in examples]
        assert len(examples) < 4 or len(examples) - min(sizes) < 2
        return
    assert not {one.group for one in data.train} & {one.group for one in data.held_out}
    assert sorted(one.id for one in data.train + data.held_out) == sorted(one.id for one in examples)
    assert len(data.held_out) >= 1
    assert len(data.train) >= 2


@given(examples=GROUPED, order=st.randoms(use_true_random=False))
def test_sides_do_not_depend_on_order(examples: list[Example], order: object) -> None:
    shuffled = list(examples)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    try:
        data = split(examples)
    except NotEnoughSignals:
        with pytest.raises(NotEnoughSignals):
            split(shuffled)
        return
    assert {one.id for one in split(shuffled).held_out} == {one.id for one in data.held_out}


@pytest.mark.parametrize("every", [1, 3, 4, 8, 12])
@pytest.mark.parametrize("passing", [1.0, 0.4])
def test_what_was_trained_on_is_not_held_out_later(every: int, passing: float) -> None:
    for user in range(60):
        chance = random.Random(f"{every}/{user}")
        rows: list[Example] = []
        trained: set[str] = set()
        while len(rows) < 48:
            for _ in range(every):
                rows.append(someones(chance, user, rows))
            if len(rows) < 4 or len({one.group for one in rows}) < 3:
                continue
            data = split(rows, trained=trained)
            held_out = {one.group for one in data.held_out}
            assert not trained & held_out
            if len(rows) >= 12:  # among fewer, one large group may leave no room for a second, or only for a large one
                assert len(held_out) >= 2
                assert len(data.held_out) <= math.ceil(0.4 * len(rows))
            if chance.random() < passing:
                trained |= {one.group for one in data.train}
                again = split(rows, trained=trained)
                assert again.fingerprint == data.fingerprint, "nothing is new, so there is nothing to learn again"
        assert 0.05 < len(data.held_out) / len(rows) <= 0.4


def someones(chance: random.Random, user: int, rows: list[Example]) -> Example:
    """A correction of one more prompt, or of one that was corrected before."""
    again = rows and chance.random() < 0.15
    group = chance.choice(rows).group if again else f"user {user} group {len(rows)}"
    return example(len(rows), group)


@given(examples=GROUPED, trained=st.sets(st.integers(0, 12)), seed=st.integers(0, 5))
def test_what_was_trained_on_judges_only_where_nothing_else_can(
    examples: list[Example], trained: set[int], seed: int
) -> None:
    before = {f"group {number}" for number in trained}
    try:
        data = split(examples, trained=before, seed=seed)
    except NotEnoughSignals:
        with pytest.raises(NotEnoughSignals):
            split(examples, seed=seed)  # whether a run begins is the same with and without
        return
    held_out, groups = {one.group for one in data.held_out}, {one.group for one in examples}
    assert len(data.train) >= 2
    if held_out & before:
        assert len(held_out) <= 2, "no more than must be"
        room = len(examples) - 2 - len([one for one in data.held_out if one.group not in before])
        sizes = {group: sum(one.group == group for one in examples) for group in groups - before - held_out}
        assert all(size > room for size in sizes.values()), "all others are too large"
    after = before | {one.group for one in data.train}
    assert split(examples, trained=after, seed=seed).fingerprint == data.fingerprint


@pytest.mark.parametrize("new", [4, 8, 12])
def test_new_corrections_teach_where_all_others_have_taught_already(new: int) -> None:
    at_once, in_all = 0, 0
    for user in range(40):
        rows = [example(number, f"user {user} group {number}") for number in range(40)]
        trained = {one.group for one in rows}
        for run in range(3):
            rows += [example(len(rows) + number, f"user {user} {run} {number}") for number in range(new)]
            data = split(rows, trained=trained)
            assert len({one.group for one in data.held_out}) >= 2
            assert not trained & {one.group for one in data.held_out}
            at_once += new - len(data.held_out) if run == 0 else 0
            trained |= {one.group for one in data.train}
        in_all += 3 * new - len(data.held_out)
    assert at_once / (40 * new) > 0.45  # of 4 two must judge
    assert in_all / (120 * new) > 0.7


def test_few_and_all_trained_on_still_part() -> None:
    rows = apart(5)
    data = split(rows, trained={one.group for one in rows})
    assert (len(data.train), len(data.held_out)) == (3, 2)
    one_new = split(rows, trained={one.group for one in rows[:4]})
    assert rows[4] in one_new.held_out
    assert len(one_new.held_out) == 2


def test_two_prompts_are_held_out_where_there_are_two() -> None:
    rows = [example(number, group) for number, group in enumerate(["a", "a", "b", "b", "c", "c"])]
    assert all(len({one.group for one in split(rows, seed=seed).held_out}) == 2 for seed in range(10))


def test_held_out_stays_held_out_once_the_share_decides() -> None:
    assert {one.id for one in split(apart(100)).held_out} <= {one.id for one in split(apart(300)).held_out}


@pytest.mark.parametrize("seed", range(20))
def test_small_sets_hold_out_two_and_never_most(seed: int) -> None:
    assert len(split(apart(4), seed=seed).held_out) == 2
    assert 2 <= len(split(apart(8), seed=seed).held_out) <= 4
    assert 2 <= len(split(apart(10), seed=seed).held_out) <= 4


def test_seed_changes_the_sides() -> None:
    assert len({tuple(one.id for one in split(apart(20), seed=seed).held_out) for seed in range(5)}) > 1


def test_large_group_goes_to_training() -> None:
    data = split([example(number, "same") for number in range(6)] + [example(9, "other")])
    assert [one.id for one in data.held_out] == ["fb-9"]


def test_too_few_says_how_many() -> None:
    with pytest.raises(NotEnoughSignals) as wrong:
        split(apart(1))
    assert (
        str(wrong.value) == "Learning needs at least 4 corrections but has 1: correct more, or lower learn.min_signals."
    )
    with pytest.raises(NotEnoughSignals, match=r"at least 3 corrections but has 2: correct more\.$"):
        split(apart(2), min_examples=1)  # one to check by and two to train on are the least there can be
    assert len(split(apart(3), min_examples=1).train) == 2


def test_one_prompt_only_cannot_be_parted() -> None:
    with pytest.raises(NotEnoughSignals, match="at least 2 different prompts, one to check by, but all 5 are of one"):
        split([example(number, "same") for number in range(5)])


def test_fingerprint_names_content_and_sides() -> None:
    data = split(apart(12))
    assert split(apart(12)).fingerprint == data.fingerprint
    assert split(apart(13)).fingerprint != data.fingerprint
    assert split(apart(12), seed=1).fingerprint != data.fingerprint
    changed = apart(12)
    changed[3] = Example("fb-3", changed[3].messages, "another", "wrong", changed[3].group)
    assert split(changed).fingerprint != data.fingerprint
