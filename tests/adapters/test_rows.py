"""Rows: under which names their reference log-probabilities are cached."""

from familiar.adapters.rows import Encoded, Rated, logps_key, reference_keys


def test_a_key_tells_where_the_prompt_ends_and_which_ids_it_has() -> None:
    parts = [((1, 2), (3,)), ((1,), (2, 3)), ((12,), (3,)), ((1, 23), (4,)), ((1, 2, 3), (4,)), ((1, 2), (3, 4))]
    assert len({logps_key(*part) for part in parts}) == len(parts)
    assert logps_key((1, 2), [3]) == logps_key([1, 2], (3,))


def test_only_what_is_compared_with_the_base_needs_a_reference() -> None:
    pair, alone = Encoded("a", (1,), (2, 3), (4,)), Encoded("b", (1,), (5,))
    rated = Rated("c", (6,), (7,), True)
    expected = [logps_key((1,), (2, 3)), logps_key((1,), (4,)), logps_key((6,), (7,))]
    assert reference_keys([pair, alone, rated]) == expected
