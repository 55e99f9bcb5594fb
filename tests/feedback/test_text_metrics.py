"""The measures against figures worked out by hand from their papers, and against naive ones."""

import random
from functools import cache

import pytest

from familiar.feedback.text_metrics import METRICS, bleu, fuzzy_match, gleu, meteor, rouge_l, rouge_n


@pytest.mark.parametrize("name", METRICS)
def test_each_is_between_0_and_1_and_1_for_equal_texts(name: str) -> None:
    rng, metric = random.Random(7), METRICS[name]
    words = "the cat sat on a mat and saw Café 3.5 dogs running ran, run! – ok".split()
    for _ in range(200):
        one, other = (" ".join(rng.choices(words, k=rng.randrange(0, 12))) for _ in range(2))
        assert 0.0 <= metric(one, other) <= 1.0
        if name != "meteor":
            assert metric(one, one) == pytest.approx(1.0)
    assert metric("the cat sat on the mat", "") == 0.0
    assert metric("", "the cat sat on the mat") == 0.0
    assert metric("yes", "no") == 0.0


def test_fuzzy_match_is_the_normalised_indel_similarity() -> None:
    assert fuzzy_match("this is a test", "this is a test!") == pytest.approx(2 * 14 / 29)
    assert fuzzy_match("lewenstein", "levenshtein") == pytest.approx(2 * 9 / 21)
    rng = random.Random(1)
    for _ in range(100):
        one, other = ("".join(rng.choices("abc ", k=rng.randrange(0, 15))) for _ in range(2))

        @cache
        def longest(i: int, j: int, one: str = one, other: str = other) -> int:
            if i == len(one) or j == len(other):
                return 0
            same = longest(i + 1, j + 1) + 1 if one[i] == other[j] else 0
            return max(same, longest(i + 1, j), longest(i, j + 1))

        wanted = 2 * longest(0, 0) / (len(one) + len(other)) if one or other else 1.0
        assert fuzzy_match(one, other) == pytest.approx(wanted)


def test_bleu_clips_smooths_and_punishes_short_texts() -> None:
    # "the" is clipped to the two of the reference: 2/7; then (0+1)/(6+1), (0+1)/(5+1), (0+1)/(4+1)
    said, wanted = "the the the the the the the", "the cat is on the mat"
    assert bleu(said, wanted) == pytest.approx((2 / 7 * 1 / 7 * 1 / 6 * 1 / 5) ** 0.25)
    # 3/3, (2+1)/(2+1), (1+1)/(1+1), (0+1)/(0+1), and exp(1 - 6/3) for its length
    assert bleu("the cat is", wanted) == pytest.approx(2.718281828 ** (1 - 6 / 3))


def test_gleu_is_the_lesser_of_precision_and_recall() -> None:
    # matching runs: 3 of 1 word, 2 of 2, 1 of 3; the reference has 6 + 5 + 4 + 3 of them
    assert gleu("the cat is", "the cat is on the mat") == pytest.approx(6 / 18)
    assert gleu("the cat is on the mat", "the cat is") == pytest.approx(6 / 18)


def test_meteor_rewards_recall_and_long_runs() -> None:
    # precision 1, recall 1/2: Fmean = 10 * 0.5 / (0.5 + 9); one chunk of three
    assert meteor("the cat is", "the cat is on the mat") == pytest.approx(5 / 9.5 * (1 - 0.5 * (1 / 3) ** 3))
    # all six match in two chunks
    assert meteor("on the mat sat the cat", "the cat sat on the mat") == pytest.approx(1 - 0.5 * (3 / 6) ** 3)
    assert meteor("cats", "cat") == pytest.approx(0.5), "stems match; one chunk of one"
    assert meteor("a" * 3, "b") == 0.0


def test_rouge_is_f1_of_recall_and_precision() -> None:
    said, wanted = "police killed the gunman", "police kill the gunman now"
    assert rouge_n(said, wanted, 1) == pytest.approx(2 * 3 / 9)
    assert rouge_n(said, wanted, 2) == pytest.approx(2 * 1 / 7)
    assert rouge_l("the gunman kill police", wanted) == pytest.approx(2 * 2 / 9)
    assert rouge_n("yes", "no", 2) == 0.0
    assert rouge_n("Yes!", "yes", 2) == 1.0


def test_long_texts_are_compared_in_little_time() -> None:
    words = " ".join(random.Random(0).choices(["a", "b", "c", "dd", "ee"], k=20_000))
    for metric in METRICS.values():
        assert 0.0 < metric(words, words[::-1]) <= 1.0
