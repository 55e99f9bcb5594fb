"""Parting: groups whole, sides stable, and a plain word when there is too little."""

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


def test_what_was_trained_on_is_not_held_out_later() -> None:
    trained: set[str] = set()
    for count in range(40, 400, 20):
        data = split(apart(count))
        trained |= {one.group for one in data.train}
        assert not trained & {one.group for one in data.held_out}
        assert 0.1 < len(data.held_out) / count < 0.35


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
