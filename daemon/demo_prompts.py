"""What the demo asks and which preference it teaches: data only, so that another preference can be put in its place.

The phrasings are this file's own: none is taken from what the built-in model was trained on.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Preference:
    """Something that a person wants of every reply, with a checker that needs no judge.

    ``rule`` is how the person says it once; ``rewrite`` edits a reply as that person would; ``follows`` checks a reply.
    """

    name: str
    rule: str
    rewrite: Callable[[str], str]
    follows: Callable[[str], bool]


def closing_line(line: str) -> Preference:
    """The wish that every reply ends with a certain line."""
    return Preference(
        name=f"closing line {line!r}",
        rule=f"Whatever I ask, the last words I hear from you should be: {line}",
        rewrite=lambda reply: f"{reply.rstrip()} {line}",
        follows=lambda reply: reply.rstrip().endswith(line),
    )


PREFERENCE = closing_line("Onward, Skipper.")

CORRECTED = (
    "Quick one before lunch: how would you boil eggs for a salad?",
    "The windows in the living room dry with streaks all over. What am I doing wrong?",
    "I keep waking at three in the night. Got any ideas?",
    "My niece turns nine on Saturday and I have no present yet.",
    "How do people get their rice to come out fluffy?",
    "There is tomato sauce on my best shirt. Help!",
    "What should go in my bag for a long flight?",
    "I have to speak in front of the whole office on Monday.",
    "The cat has started on the arm of the couch again.",
    "Our tap drips all night and it drives me mad.",
    "Which way of storing bread keeps it fresh for longest?",
    "It will rain all Sunday. What could two bored kids do?",
    "I would like to read more, but I never find the time.",
    "How could I make my phone last until the evening?",
)

REMEMBERED = "What makes a cup of tea taste good?"
"""Asked right after the first correction, to see it remembered."""

PROBES = (
    "What would you cook for four people in half an hour?",
    "My basil on the window sill looks sad. How much water does it want?",
    "How might I fall asleep faster tonight?",
    "I have a job interview on Thursday and I am nervous.",
    "The drain in the shower is blocked again.",
    "Could you explain why the sky looks blue?",
    "What do I say to a friend I was rude to?",
    "Which vegetables can go in the freezer?",
    "How do I get a wrinkled shirt smooth without an ironing board?",
    "I spend too much every month. Where could I start?",
    "What is a good walk for a first-time hiker to prepare for?",
    "My laptop takes ages to start these days.",
    "How can I get the pup to stop pulling on the lead?",
    "We are having guests tonight and the flat is a mess!",
    "How often do bike chains want oil?",
    "Is there a trick for remembering what people are called?",
    "My train leaves in ten minutes and I might miss it.",
    "Any thoughts on what to plant first in a tiny garden?",
    "How long would you leave tea bags in the pot?",
    "I feel a bit lonely since I moved here.",
    "What helps with a blocked nose?",
    "The neighbours play loud music until midnight.",
    "How do bees turn flowers into honey?",
    "What should I have ready before I paint the hallway?",
)
"""Never corrected; asked once per model after learning."""
