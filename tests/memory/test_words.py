"""Words, and when two texts are the same."""

import pytest

from familiar.memory.words import content_words, same_text_key, same_words_key, stem, words


def test_words_are_letters_and_digits() -> None:
    assert words("Don't e-mail foo_bar, 3.5 Zoë 😀!") == ["don", "t", "e", "mail", "foo", "bar", "3", "5", "zoë"]
    assert content_words("Please tell me about the weather, don't you?") == ["weather"]


@pytest.mark.parametrize(
    ("one", "other"), [("boiling", "boils"), ("liked", "likes"), ("make", "making"), ("boxes", "box"), ("Café", "cafe")]
)
def test_stem_joins_forms_of_a_word(one: str, other: str) -> None:
    assert stem(one) == stem(other)


@pytest.mark.parametrize(("one", "other"), [("sing", "sang"), ("bed", "bing"), ("us", "using"), ("cat", "car")])
def test_stem_keeps_words_apart(one: str, other: str) -> None:
    assert stem(one) != stem(other)


def test_keys() -> None:
    assert same_text_key(" Use  metric units. ") == same_text_key("use metric units")
    assert same_text_key("Use C") != same_text_key("Use C++")
    assert same_text_key("?") == "?"
    assert same_words_key("Hello, Zoë!") == same_words_key("hello zoe")
    assert same_words_key("😀") != same_words_key("😎")
