"""What a user does to replies again and again, found in corrections."""

from collections.abc import Callable, Sequence

import pytest

from familiar.feedback.habits import (
    NO_MANNER,
    Begins,
    Cased,
    Edit,
    Ends,
    Listed,
    Manner,
    Says,
    Sentences,
    Words,
    find,
    revised,
)
from familiar.feedback.pairs import Example

REPLIES = (
    "Peel the carrots and cut them small. Cook them for ten minutes. The soup is done when they are soft.",
    "A short walk after lunch helps. It wakes you up!",
    "Put the shoes on the balcony overnight, and brush them in the morning. Do not use hot water.",
    "The bus leaves from the station. Buy a ticket before you get on, since the driver sells none.",
    "Write down an idea as soon as you have it. Read the list again on Sunday.",
    "Open the window for five minutes. Warm air carries more water, so the glass gets wet when it cools.",
    "Most plants die of too much water. Feel the earth with a finger first.",
    "An old towel is the best thing to dry a dog with. Begin with the paws.",
    "Set the alarm a little earlier each day. The body needs about a week.",
    "Ask the neighbors first! A note in the hall often finds the owner of a cat.",
    "Fold the shirt along the seams. Roll it up, and it takes less room in the bag.",
    "Save a tenth of the money on the day you get it. What is not there is not spent.",
)


def examples(*parts: tuple[Callable[[str], str], Sequence[str]]) -> list[Example]:
    """Corrections by somebody who rewrites replies so, one after another; what they leave alone is none."""
    pairs = [(text, rewrite(text)) for rewrite, texts in parts for text in texts]
    return [
        Example(str(number), ({"role": "user", "content": f"{number}?"},), after, before, str(number))
        for number, (before, after) in enumerate(pairs)
        if after != before
    ]


@pytest.mark.parametrize(
    ("rewrite", "expected"),
    [
        (lambda text: f"Ahoy! {text}", (Begins("Ahoy! "),)),
        (lambda text: f"{text}\n-- J.", (Ends("\n-- J."),)),
        (lambda text: f"<{text}>", (Ends(">"), Begins("<"))),
        (str.upper, (Cased("capitals only"),)),
        (str.lower, (Cased("no capitals"),)),
        (lambda text: text.replace("!", "."), ()),  # in three of twelve replies: too few to tell
        (lambda text: text.replace(".", "!"), (Says(((".", "!"),)),)),
        (Says((("you", "thou"), ("the", "ye"))), (Says((("the", "ye"), ("you", "thou"))),)),
        (Listed("-"), (Listed("-"),)),
        (Listed("1."), (Listed("1."),)),
        (Sentences(1), (Sentences(1),)),
        (Words(8), (Words(8),)),
        (lambda text: f"{text.upper()} OVER", (Cased("capitals only"), Ends(" OVER"))),
        (lambda text: f"Dear me. {Listed('*')(text)}", (Begins("Dear me. * "),)),  # told by its frame: no line alone
    ],
)
def test_what_is_done_to_every_reply_is_found(rewrite: Callable[[str], str], expected: tuple[Edit, ...]) -> None:
    given = examples((rewrite, REPLIES))
    found = find(given)
    assert found.edits == expected
    assert found.given_up == ()
    if expected and not isinstance(expected[0], Begins):
        assert [found(each.rejected or "") for each in given] == [each.chosen for each in given]


def test_what_is_found_is_done_to_other_replies_once() -> None:
    edits: list[Edit] = [
        *(Begins("Ahoy! "), Ends(" Bye."), Says((("the", ""), ("!", "."))), Listed("a)"), Listed(""), Sentences(2)),
        *(Words(7), Cased("the last word in capitals"), Cased("capitals only"), Cased("no capitals")),
        Cased("a capital on every word"),
    ]
    for edit in edits:
        for text in (*REPLIES, "One.", "No stop at the end", "3.5 e.g. l'île - é"):
            once = edit(text)
            assert edit(once) == once, (edit, text)
            assert str(edit)


def test_edits_keep_what_they_do_not_name() -> None:
    assert Says((("the", ""), ("a", "")))("The cat saw a dog. The end.") == "Cat saw dog. End."
    assert Says(((".", "..."),))("It is 3.5 m, e.g. this. Yes.") == "It is 3.5 m, e.g... this... Yes..."
    assert Says((("color", "colour"),))("Color is color, colors.") == "Colour is colour, colors."
    assert Listed("1.")("One thing. And two.") == "1. One thing.\n2. And two."
    assert Listed("a)")("only one") == "a) only one"
    assert Words(4)("Yes. This is rather long, so it goes.") == "Yes."
    assert Words(4)("This is rather long, so it goes.") == "This is rather long."
    assert Cased("the last word in capitals")("So it goes.") == "So it GOES."


def test_a_few_corrections_are_no_habit() -> None:
    assert find(examples((Begins("Ahoy! "), REPLIES[:3]))) == NO_MANNER
    assert not NO_MANNER
    assert find(examples((Begins("Ahoy! "), REPLIES[:4]))).edits == (Begins("Ahoy! "),)


def test_what_a_correction_shows_beside_a_habit_is_not_explained_by_it() -> None:
    manner = Manner((Begins("Ahoy! "),))
    (plain,) = examples((lambda text: f"Ahoy! {text}", REPLIES[:1]))
    (more,) = examples((lambda text: f"Ahoy! {text.partition('.')[0]}. Serve it with bread and butter.", REPLIES[:1]))
    assert manner.explains(plain)
    assert not manner.explains(more)
    assert not NO_MANNER.explains(plain)


def test_what_is_written_anew_begins_alike_by_chance() -> None:
    answers = (
        *("A word for the same as ship is boat.", "A sentence with table is dinner is on the table."),
        *("A word that sounds like flair is flare.", "A word for the same as chap is boy."),
        *("A word that sounds like wreak is wreck.", "A sentence with lake is we swam in the lake."),
    )
    pairs = zip(REPLIES, answers, strict=False)
    assert find([Example(str(n), (), after, before, str(n)) for n, (before, after) in enumerate(pairs)]) == NO_MANNER


def test_corrections_of_what_is_said_show_no_habit() -> None:
    turned = dict(zip(REPLIES, (*REPLIES[5:], *REPLIES[:5]), strict=True))
    assert find(examples((turned.__getitem__, REPLIES))) == NO_MANNER


def test_a_rewording_beside_the_habit_does_not_hide_it() -> None:
    def rewrite(text: str) -> str:
        words = text.split()
        return " ".join([*words[:2], words[-1].upper(), *words[3:], "Over and out."])

    assert find(examples((rewrite, REPLIES))).edits == (Ends(" Over and out."),)


def test_who_changes_their_mind_is_taken_at_their_last_word() -> None:
    given = examples((Ends(" Bye now."), REPLIES[:6]), (Ends(" Mind the gap."), REPLIES[6:]))
    found = find(given)
    assert found.edits == (Ends(" Mind the gap."),)
    assert found.given_up == (Ends(" Bye now."),)
    assert revised(given, found) == tuple(given[6:])
    assert [found.is_outdated(each) for each in given] == [True] * 6 + [False] * 6


def test_in_the_middle_of_a_change_nothing_is_dropped() -> None:
    given = examples((Ends(" Bye now."), REPLIES[:8]), (Ends(" Mind the gap."), REPLIES[8:10]))
    found = find(given)
    assert Ends(" Bye now.") not in found.given_up
    assert len(revised(given, found)) == 10


def test_a_second_wish_does_not_end_the_first_one() -> None:
    """Once replies greet by themselves, corrections show only what else is wanted."""

    given = examples((Begins("Ahoy! "), REPLIES[:6]))
    later = [
        Example(f"later-{each.id}", each.messages, f"{each.chosen} #filed", each.chosen, each.group)
        for each in examples((Begins("Ahoy! "), REPLIES[6:]))
    ]
    found = find([*given, *later])
    assert found.edits == (Ends(" #filed"), Begins("Ahoy! "))
    assert found.given_up == ()
    assert [each.chosen for each in revised(given, found)] == [f"{each.chosen} #filed" for each in given]


def test_habits_are_told_in_words() -> None:
    manner = Manner((Sentences(1), Says((("hi", "hello"), ("very", ""))), Listed("1."), Ends(" Bye."), Begins("A\n")))
    assert manner.wants == (
        "have 1 sentence at most",
        "say “hello” for “hi”, do without “very”",
        "have a line for each thing, as in “1. …”",
        "end with “Bye.”",
        "begin with “A”",
    )


def test_long_replies_and_empty_ones_are_left_alone() -> None:
    given = [Example("1", (), "x" * 5000, "y" * 5000, "1"), Example("2", (), "Yes.", None, "2")] * 6
    assert find(given) == NO_MANNER
