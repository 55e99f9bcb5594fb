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
        rule=f'I would love it if you ended every single answer with "{line}"',
        rewrite=lambda reply: f"{reply.rstrip()} {line}",
        follows=lambda reply: reply.rstrip().endswith(line),
    )


PREFERENCE = closing_line("Onward, Skipper.")

CORRECTED = (
    "How long does an egg have to boil?",
    "What gets windows clean without streaks?",
    "How can I fall asleep more easily?",
    "What could I give my sister for her birthday?",
    "How much water does rice need when I cook it?",
    "How can I get a stain out of my shirt?",
    "What should I put in my suitcase?",
    "How do I stay calm when I speak in public?",
    "Why does my cat scratch the sofa, and what helps?",
    "How could I fix a tap that drips?",
    "What helps me to read more books?",
    "What can the kids do when it rains all day?",
    "How can my phone battery last longer?",
    "What is a good way to learn a new language?",
    "How should I store the leftovers from dinner?",
    "How do I pick a strong password?",
    "What can I do to save more money each month?",
    "How do I change a flat tire on my bike?",
    "What makes a good first day at a new job?",
    "How can I make my garden ready for spring?",
    "When should I get to the airport for a flight?",
    "What is a simple way to start running?",
    "How can I make new friends in my town?",
    "Why does the moon change its shape so often?",
)

REMEMBERED = "How do I keep bread fresh for longer?"
"""Asked right after the first correction, to see it remembered."""

PROBES = (
    "How would you make a pot of good coffee?",
    "How often should I give my plants water?",
    "What could I cook for dinner in a hurry?",
    "How do I get ready for a job interview tomorrow?",
    "What can I do about a blocked drain?",
    "Could you explain why the sky is blue?",
    "What do I say when I want to apologize?",
    "Which food can I put in the freezer?",
    "How do I iron a shirt so that it looks neat?",
    "What is a good plan for a free weekend?",
    "What should I take along on a hike?",
    "Why is my computer so slow these days?",
    "How can I teach my puppy to behave well?",
    "How do I get the house ready for guests?",
    "How often does a bike chain need oil?",
    "Is there a trick to remember names?",
    "What should I do when I miss my train?",
    "How do I grow tomatoes at home?",
    "How long should black tea stay in the water?",
    "What would help me when I have a cold?",
    "How can I talk to a noisy neighbor?",
    "How do bees make their honey?",
    "What do I need before I paint a wall?",
    "How can I learn to play the guitar?",
)
"""Never corrected; asked once per model after learning."""
