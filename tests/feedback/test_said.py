"""What is said to be remembered is found, and what only sounds like it is not."""

import time

import pytest

from familiar.feedback.own_words import own_words
from familiar.feedback.said import Statement, statements

SAID = {
    "Remember that my sister is called Ann.": "My sister is called Ann.",
    "remember my dog is called Rex": "My dog is called Rex.",
    "Remember: I take my coffee black": "I take my coffee black.",
    "Remember that the meeting is on Fridays.": "The meeting is on Fridays.",
    'Remember that my firm is called "Blue Horse" and sells hay.': 'My firm is called "Blue Horse" and sells hay.',
    "Remember that my doctor is Dr. Smith.": "My doctor is Dr. Smith.",
    "Please don't forget: I'm vegetarian": "I'm vegetarian.",
    "Don’t ever forget that I hate mushrooms!": "I hate mushrooms.",
    "Hi! Please remember that I live in Oslo. Thanks!": "I live in Oslo.",
    "What's the weather like? Also, remember that I'm allergic to nuts.": "I'm allergic to nuts.",
    "Can you please remember that I'm allergic to nuts?": "I'm allergic to nuts.",
    "My sister is called Ann. Remember that.": "My sister is called Ann.",
    "I'm vegetarian, please remember that": "I'm vegetarian.",
    "please remember from now on that I am left-handed": "I am left-handed.",
    "Keep in mind that I'm colour-blind.": "I'm colour-blind.",
    "Remember to use British spelling.": "Use British spelling.",
    "From now on, answer in French.": "Answer in French.",
    "From now on I'm vegetarian": "I'm vegetarian.",
    "Always use metric units from now on": "Always use metric units.",
    "Use tabs from now on, please.": "Use tabs.",
    "You should from now on answer briefly.": "Answer briefly.",
    "Can you from now on answer in Spanish?": "Answer in Spanish.",
    "In future, please don't use emojis.": "Don't use emojis.",
    "Always answer in French.": "Always answer in French.",
    "I want you to always cite sources.": "Always cite sources.",
}

NOT_SAID = [
    "Do you remember that movie?",
    "Do you remember that my sister is called Ann?",
    "Remember when we went to Rome?",
    "Remember that time we went to Rome.",
    "Can you remember my name?",
    "remember me?",
    "Remember the Alamo",
    "Remember that?",
    "Remember that.",
    "I remember that my sister was tall.",
    "I can't remember my password",
    "Don't remember this",
    "Note to self: buy milk",
    "Don't forget to water the plants",
    "He told me: remember that I am king",
    'How do I say "Remember that I love you" in German?',
    "Translate into French: Remember that I love you.",
    "Translate this:\nRemember that I am late.",
    "Explain this: from now on, all men are equal",
    "Write a sort function. Remember that the list may be empty.",
    "Keep in mind that the list may be empty. Write a sort.",
    "Write a story. Always use the past tense.",
    "From now on he was king.",
    "Prices rise from now on.",
    "What did you do from now on?",
    "Is it true that from now on taxes rise?",
    "In the future, cars will fly.",
    "Never mind",
    "I never use emojis.",
    "I will always love you.",
    "What was said in this conversation?",
    "Summarise this conversation",
    "> Remember that I like tea\nWhat does this mean?",
    "```\nFrom now on, use X.\n```\nWhat does it do?",
    "How do people remember things?",
    "Remember that " + "I like tea and " * 40,
]


@pytest.mark.parametrize(("message", "text"), SAID.items())
def test_what_is_said_to_be_remembered(message: str, text: str) -> None:
    assert statements(own_words(message)) == [Statement(text)]


@pytest.mark.parametrize("message", NOT_SAID)
def test_what_is_not(message: str) -> None:
    assert statements(own_words(message)) == []


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("In this chat, answer in German.", "Answer in German."),
        ("Call me Captain in this conversation.", "Call me Captain."),
        ("For the rest of this conversation keep answers under 20 words", "Keep answers under 20 words."),
        ("Please remember that, for this conversation, my name is Zed.", "My name is Zed."),
    ],
)
def test_what_is_said_for_one_conversation(message: str, text: str) -> None:
    assert statements(own_words(message)) == [Statement(text, conversation_only=True)]


def test_several_statements_none_twice() -> None:
    message = "Remember that I like tea. From now on, call me Bob. Remember that I like tea."
    assert [said.text for said in statements(message)] == ["I like tea.", "Call me Bob."]


@pytest.mark.parametrize(
    "message", ["remember " * 2_000, "always " * 2_500, "from now on, " * 1_500, "please " * 2_500]
)
def test_no_message_takes_long(message: str) -> None:
    begun = time.process_time()
    statements(own_words(message))
    statements(message[:1_000])
    assert time.process_time() - begun < 0.2
