"""Short objections to a reply are read as what they ask for, and ordinary turns are not."""

import time

import pytest

from familiar.feedback.rebuttals import is_about_a_question, rebuttal, says_again

QUESTION = "When was NASA founded?"

FORM = {
    "shorter please": "Keep replies short.",
    "Can you make it shorter?": "Keep replies short.",
    "Thanks! Can you make it shorter?": "Keep replies short.",
    "That's too long.": "Keep replies short.",
    "That's way too long, shorter please": "Keep replies short.",
    "Too wordy!": "Keep replies short.",
    "make it less wordy": "Keep replies short.",
    "more concise please": "Keep replies short.",
    "Be brief.": "Keep replies short.",
    "No. Shorter.": "Keep replies short.",
    "in more detail please": None,
    "Longer, please": "Give longer, more detailed replies.",
    "simpler please": "Use simple words.",
    "too complicated": "Use simple words.",
    "not so formal": "Keep a casual tone.",
    "less formal please": "Keep a casual tone.",
    "more formal": "Keep a formal tone.",
    "don't use bullet points": "Do not use bullet points.",
    "No bullet points, please.": "Do not use bullet points.",
    "Stop using emojis": "Do not use emojis.",
    "plain text please": "Do not use Markdown.",
    "in metric please": "Use metric units.",
    "I said in metric": "Use metric units.",
    "in celsius please": "Give temperatures in Celsius.",
    "again but in British English": "Answer in British English.",
    "In German please": "Answer in German.",
    "stop apologizing": "Do not apologise.",
    "Just the answer please": "Give just the answer.",
}

OWN = {
    "Please don't use the word delve": "Don't use the word delve.",
    "don't call me sir": "Don't call me sir.",
    "call me Ann": "Call me Ann.",
    "use tabs instead of spaces": "Use tabs instead of spaces.",
    "I told you I'm vegetarian.": "I'm vegetarian.",
    "But I already told you that I live in Oslo": "I live in Oslo.",
}

ABOUT = {
    "no, I meant the river": "I meant the river.",
    "that's wrong, it's 1958": "It's 1958.",
    "That is not correct: the answer is 12": "The answer is 12.",
    "Wrong. The capital is Canberra.": "The capital is Canberra.",
    "No, it's 1958.": "It's 1958.",
    "Actually, it was Edison.": "It was Edison.",
    "I said the river, not the bank": "The river, not the bank.",
    "I asked about Python, not Java": "I asked about Python, not Java.",
}

ORDINARY = [
    "What is the capital of France?",
    "Thanks!",
    "Yes please",
    "no",
    "No, thanks",
    "ok great",
    "Tell me more",
    "And what about Italy?",
    "No, it's fine",
    "No it's for my mother",
    "I see. How long is the Nile?",
    "Why is that wrong?",
    "Is it too long?",
    "What's too long for a skirt?",
    "I meant to ask: how old is she?",
    "Make a list of fruits",
    "Write it in Python",
    "Don't worry about it",
    "That's right, it's 1958",
    "Can you translate that?",
    "How do you say it in French?",
    "Explain it again",
    "What did you mean?",
    "That's not bad",
    "Too bad, I wanted to go.",
    "Give me an example",
    "Use the second option",
    "No problem. Next question: who is Ann?",
    "Is that wrong, or is it right?",
    "I said hello to her",
    "Go on",
    "Now in the style of Hemingway",
    "Good, now write the second chapter",
    "Actually, can you tell me about dogs?",
    "Actually it's a nice idea",
    "more",
    "That's not what I asked.",
    'shorter please:\n"""a long text"""',
    "> too long\nshorter",
    "Too long. " + "And then I went to the sea and looked for shells all day long. " * 6,
]


@pytest.mark.parametrize(("turn", "text"), {**FORM, **OWN}.items())
def test_what_holds_for_every_reply(turn: str, text: str | None) -> None:
    found = rebuttal(turn, reply="It was founded in 1957.", question=QUESTION)
    assert found == text
    assert found is None or not is_about_a_question(found)


@pytest.mark.parametrize(("turn", "text"), ABOUT.items())
def test_what_holds_for_one_question_names_it(turn: str, text: str) -> None:
    found = rebuttal(turn, reply="It was founded in 1957.", question=QUESTION)
    assert found == f'When asked "{QUESTION}": {text}'
    assert is_about_a_question(found)


@pytest.mark.parametrize("turn", ORDINARY)
def test_ordinary_turns(turn: str) -> None:
    assert rebuttal(turn, reply="It was founded in 1957.", question=QUESTION) is None


def test_an_answer_to_the_assistants_question_is_no_rebuttal() -> None:
    assert rebuttal("No, it's a present.", reply="It looks nice. Is it for you?", question="A scarf, please") is None
    assert rebuttal("That's wrong, it's 12.", reply="It is 13. Right?", question="6 + 6?") is not None


def test_says_again() -> None:
    assert says_again("Don't use the word delve.", "don't use the word “delve”")
    assert says_again("Call me Ann.", "Please call me Ann")
    assert not says_again("Use emojis.", "Do not use emojis.")
    assert not says_again("Call me Ann.", "Call me Bob.")


@pytest.mark.parametrize(
    "turn", ["no " * 80, "much " * 48, "too " * 60, "it, " * 60, "please make it a bit " * 11, "not so " * 34]
)
def test_no_turn_takes_long(turn: str) -> None:
    begun = time.process_time()
    rebuttal(turn, reply="It was.", question=QUESTION)
    assert time.process_time() - begun < 0.1
