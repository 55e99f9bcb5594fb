"""What the user typed is told from what they pasted."""

import pytest

from familiar.feedback.own_words import as_sentence, own_words, sentences, share_taken


@pytest.mark.parametrize(
    ("message", "own"),
    [
        ("How are you?", "How are you?"),
        ("Look:\n```\nfrom now on: x\n```\nWhat is it?", "Look:"),
        ("What is it?\n```python\nalways()\n```", "What is it?"),
        ("Fix it\n```\nnever closed", "Fix it"),
        ("> I said\n> this\nI disagree.", "I disagree."),
        ("Answer this mail:\nDear Sir,\nalways yours", "Answer this mail:"),
        ("Thanks!\n\nFrom: Ann\nSubject: Remember\n\nRemember that I left.", "Thanks!"),
        ("Short, please.\n\nOn Monday, 3 May, Ann Lee wrote:\nfrom now on …", "Short, please."),
        ("Hi\n-----Original Message-----\nalways", "Hi"),
        ("See <document>Remember that I am king.</document> Who says so?", "See\nWho says so?"),
        ('Is """always use X""" right?', "Is\nright?"),
        ('{"role": "user"}\n| a | b |\nWhich one?', "Which one?"),
        ("    return always\nWhat does it do?", "What does it do?"),
        ("2026-01-01 12:00:01 remember me\nWhat failed?", "What failed?"),
        ("x" * 30_000, ""),
    ],
)
def test_own_words(message: str, own: str) -> None:
    assert own_words(message) == own


def test_of_a_long_message_only_short_first_and_last_paragraphs_count() -> None:
    page = "\n\n".join(f"Paragraph {n} says that everybody always has to agree." for n in range(40))
    assert own_words(f"Sum this up.\n\n{page}\n\nAnd keep it short.") == "Sum this up.\n\nAnd keep it short."
    assert own_words(f"Sum this up.\n\n{'A page that goes on. ' * 80}") == "Sum this up."
    assert own_words("One long breath. " * 90) == ""


def test_sentences_keep_quotations_apart() -> None:
    text = 'He said "Go. Now." Dr. Smith left at 3.30 p.m. I\'m here\nDone'
    assert [said for said, _ in sentences(text)] == [
        'He said "Go. Now." Dr. Smith left at 3.30 p.m.',
        "I'm here",
        "Done",
    ]
    assert all(len(said) == len(blanked) for said, blanked in sentences(text))
    assert "Go" not in sentences(text)[0][1]


def test_as_sentence() -> None:
    assert as_sentence(" use  metric units, ") == "Use metric units."
    assert as_sentence("could it be?") == "Could it be."
    assert as_sentence("stop!") == "Stop!"
    assert as_sentence("") == ""


def test_share_taken() -> None:
    source = "The committee met on Tuesday and decided to postpone the launch until the spring."
    assert share_taken("decided to postpone the launch until the spring", [source]) == 1
    assert share_taken("The launch is late, I think, and Tuesday was bad.", [source]) == 0
    assert 0.4 < share_taken("They decided to postpone the launch, which I find very sad", ["", source]) < 0.6
    assert share_taken("on Tuesday", [source]) == 1
    assert share_taken("", [source]) == 0
