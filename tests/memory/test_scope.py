"""What sort of memory a stated text is, and which requests it applies to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from familiar.memory.scope import default_scope, is_of_replies, kind_of, plain

ALWAYS = """
Use metric units.
Write in British English
Reply in French
Answer briefly.
Keep answers short
Be concise.
Avoid jargon
Never use emojis
Always cite sources
Don't apologise
Call me Al
Address me as Dr Smith
Sign off with "Cheers"
I prefer short answers.
I like bullet points
I want replies in German
Full sentences, please
No emojis
Short answers please
Answers should be short.
You should use tabs
I want you to be blunt
Use metric units if possible
If you don't know, say so
When in doubt, ask
Start every reply with Sailboat!
please always use the 24-hour clock
Could you write in plain text?
I'd like you to address me formally
Write in capital letters
Use Celsius for temperatures
From now on, answer in one sentence.
Don't tell me jokes
Ask clarifying questions
I don't like it when you apologise
I prefer to be called Sam
I would love it if you ended every single answer with "Onward, Skipper."
I would be glad if every answer closed with the words Fair winds.
It would be nice if you kept it brief
Conclude each answer by asking "Does that help?"
End with "See you at work"
A single sentence is all that I want to read.
One sentence is enough for me
Bullets are easier for me.
Short answers are best.
Your replies are too long.
Each reply is labelled Note
I love exclamation marks, so use plenty of them.
""".strip().splitlines()
"""Rules on how to reply in general."""

RELATED = """
When I ask for a recipe, use grams
In emails, sign as Bob
For code, use tabs
Use imperial units for travel
If I ask about Paris, be brief
I prefer aisle seats
I dislike online courses
I'm vegetarian
My dog is called Rex
Use metric units in recipes
Emails should be short
Write SQL in capitals
Answer history questions with dates
Never suggest online courses
Recommend only vegan restaurants
Use a formal tone with my boss
I have a strong aversion to digital learning
We live in Rome
Anna is my sister
Whenever I mention Tom, be kind
I hate mushrooms
I love jazz
I would love it if you used grams in recipes
I am happy when it rains
""".strip().splitlines()
"""Bound to a kind of request, or about the user."""

FACTS = """
My dog is called Rex
I'm vegetarian
I live in Paris
Anna's birthday is 3 May
The capital of Australia is Canberra
I work at Acme
My name is Bob
Mark is my brother
Address: 5 Main Street
I am allergic to nuts
I was born in 1980
We have two cats
My sister lives in Rome
I am 40 years old
The wifi password is abc
Tom's phone number is 555
The answer is 42
Your answer is wrong, she lives in Oslo
Emojis are small pictures
""".strip().splitlines()


@pytest.mark.parametrize("text", ALWAYS)
def test_rules_on_how_to_reply_apply_always(text: str) -> None:
    assert kind_of(text) == "rule"
    assert default_scope("rule", text) == "always"


@pytest.mark.parametrize("text", RELATED + FACTS)
def test_what_is_bound_to_a_kind_of_request_or_about_the_user_is_related(text: str) -> None:
    assert default_scope("rule", text) == "related"


@pytest.mark.parametrize("text", FACTS)
def test_descriptions_are_facts(text: str) -> None:
    assert kind_of(text) == "fact"


@pytest.mark.parametrize(
    "text", ["I prefer aisle seats", "I hate mushrooms", "In emails, sign as Bob", "Recommend only vegan restaurants"]
)
def test_preferences_and_bound_instructions_are_rules(text: str) -> None:
    assert kind_of(text) == "rule"


@pytest.mark.parametrize("text", ALWAYS)
def test_facts_and_examples_are_related_whatever_they_say(text: str) -> None:
    assert default_scope("fact", text) == default_scope("example", text) == "related"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Please, from now on: use tabs", "use tabs"),
        ("Remember that I\u2019m vegan", "i'm vegan"),
        ("I want you to be blunt", "be blunt"),
        ("No, my name is Al", "my name is al"),
        ("No emojis, please", "no emojis, please"),
        ("Salt and pepper", "salt and pepper"),
        ("\u201cUse tabs\u201d", "use tabs"),
    ],
)
def test_courtesies_are_no_part_of_what_is_said(text: str, left: str) -> None:
    assert plain(text) == left


@given(st.text())
def test_any_text_has_a_kind_and_a_scope(text: str) -> None:
    assert kind_of(text) in ("rule", "fact")
    assert default_scope("rule", text) in ("always", "related")
    is_of_replies(plain(text))
