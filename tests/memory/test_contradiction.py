"""Which statements end which, and which say the same: decided by their words, and rather missed than mistaken."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from familiar.memory.contradiction import contradicted, lookups, says_the_same
from familiar.memory.store import Store
from familiar.memory.types import Memory, MemoryKind, Scope


def contradicts(newer: Memory, older: Memory) -> bool:
    return contradicted(newer, (older,)) == [older]


def pairs(lines: str) -> list[tuple[str, str]]:
    """Two statements a line, with " / " between them."""
    parted = [line.strip().split(" / ") for line in lines.strip().splitlines()]
    return [(first, second) for first, second in parted]


CONTRADICTORY = pairs(
    """
    My name is Bob / My name is Alice
    my name is bob / My name is Alice
    My name's Bob / my name is Carol.
    Call me Bob / Call me Dr Smith
    Call me Bob / Please address me as Robert from now on
    I live in Paris / I moved to Rome
    I live in Paris / I'm now living in Rome, Italy
    I live in Paris / I've just moved to Berlin with my wife
    I work at Acme / I now work for Globex as an engineer
    I work as a nurse / I work as a teacher
    I am 40 years old / I'm 41
    I was born in 1980 / I was born in 1981
    My birthday is 3 May / My birthday is on 4 May
    Use metric units / Use imperial units.
    Use metric units in recipes / Use imperial units in recipes
    I prefer metric units / Please use imperial units
    Write in British English / Use American spelling
    Use British spelling / I want American spelling
    Answer in French / Reply in German
    Answer in English. / From now on, always respond in Spanish
    Sign off with "Cheers" / Sign off with "Best wishes"
    The capital of Australia is Sydney / The capital of Australia is Canberra
    Anna's birthday is 3 May / Anna's birthday is 5 June
    My sister's name is Ann / My sister's name is Beth
    My dog is called Rex / My dog is called Max
    My dog's name is Rex / My dog is called Max
    I like coffee / I don't like coffee anymore
    I like coffee / I no longer like coffee.
    I'm allergic to nuts / I'm not allergic to nuts
    I love coffee / I hate coffee
    Use emojis. / Don't use emojis.
    No emojis / Use emojis
    Never use emojis / Always use emojis
    Avoid emojis / Use emojis please
    Keep answers short / Give detailed answers
    Be brief / Be thorough
    I prefer short answers / I prefer long answers
    Be formal / Be casual
    Use bullet points / Write in paragraphs
    Use the 12-hour clock / Use the 24-hour clock
    Use tabs / Use spaces
    Use Celsius / Use Fahrenheit
    Use markdown / Use plain text
    Answer in 3 sentences / Answer in 5 sentences
    Use 2 spaces for indentation / Use 4 spaces for indentation
    I prefer tea over coffee / I prefer coffee to tea
    My favourite colour is blue / My favorite color is green
    My favourite food is pizza / My favourite food is sushi
    My phone number is 555-1234 / My phone number is 555-9999
    My email is a@b.c / My email is d@e.f
    Use euros / Use dollars
    Prefer DD/MM/YYYY dates / Use ISO dates
    I drink coffee / I stopped drinking coffee
    I'm vegetarian / I'm not vegetarian anymore
    My boss is Tom / My boss is Anna
    Use metric, not imperial / Use imperial units
    I am married to Tom / I am married to Jim
    Start every reply with "Hello" / Start replies with "Ahoy"
    The wifi password is abc / The wifi password is xyz
    I live in Paris / I no longer live in Paris
    I don't like coffee / I like coffee
    Explain in detail / Explain briefly
    Don't use American spelling / Use American spelling
    My sister lives in Rome / My sister lives in Oslo
    I have a dog / I have no dog
    Use formal language / Use informal language
    """
)

COMPATIBLE = pairs(
    """
    I like tea / I like coffee
    My sister's name is Ann / My brother's name is Tom
    Use metric units in recipes / Use imperial units for travel
    Use metric units / Use imperial units for travel
    I love jazz / I love rock
    I'm allergic to nuts / I'm allergic to milk
    I own a bike / I own a car
    I have a cat / I have a dog
    I speak French / I speak German
    I enjoy hiking / I enjoy chess
    I dislike mushrooms / I dislike olives
    My name is Robert / Call me Bob
    My name is Bob / My name is hard to spell
    My name is Bob / My name is spelt with one o
    My sister is a doctor / My sister is 30
    My sister is Ann / My sister is Catholic
    My dog is called Rex / My dog is a labrador
    My friend is called Tom / My friend is called Jim
    My friend's name is Tom / My friend's name is Jim
    My cat's name is Tom / My dog's name is Rex
    I live in Paris / I live in France
    I live in Paris / I live in a small flat
    I moved to Linux / I live in Paris
    I live in Paris / I live with my mother
    I live in Paris / I used to live in Rome
    I live in Paris / I will move to Rome next year
    I live in Paris / I want to move to Rome
    I work at Acme / I work at night
    I work at Acme / I work as a nurse
    I work at Acme / I work in finance
    I worked at Acme / I don't work at Acme
    I was born in 1980 / I was born in Paris
    My birthday is 3 May / My birthday is in summer
    I was born on 3 May 1980 / I was born in 1980
    The capital of Australia is Canberra / The capital of France is Paris
    The capital of Australia is Canberra / The capital of Australia is beautiful
    Use emojis in chats / Don't use emojis in emails
    Use emojis / Don't use emojis in emails
    Don't use too many emojis / Use emojis
    Keep answers short / When I ask for code, explain in detail
    In emails be formal / In chats be informal
    Write short emails / Write long stories
    Use bullet points for lists / Use paragraphs in essays
    I like short films / I like long films
    I like long walks / Keep answers short
    I don't like coffee / I don't like tea
    I like coffee / I don't like decaf coffee
    I like coffee with milk / I don't like coffee in the evening
    He likes tea / He doesn't like tea
    It is red / It is not red
    Answer in French / I speak German
    Answer in French / My French is poor
    Translate to French / Translate to German
    I am learning Spanish / Answer in French
    Remind me at 5 / Remind me at 6
    My job is stressful / My job is nursing
    I prefer tea over coffee / I prefer tea over water
    My favourite colour is blue / My favourite food is pizza
    My favourite food is pizza / My favourite food when ill is soup
    My car is red / My car is a Volvo
    My meeting is at 5 / My meeting is with Tom
    Avoid jargon / Avoid passive voice
    Use short sentences / Use long variable names
    Tom's car is red / Tom's car is fast
    My friend Anna likes tea / My friend Bob likes coffee
    I am a nurse / I am a mother
    I'm tired / I'm hungry
    I use Python / I use Rust
    I use vim / I don't use emacs
    Use British spelling / Use American dates
    Be concise / Be kind
    Use metric and imperial units / Use metric units
    I have two cats / I have a dog called Rex
    I prefer aisle seats / I prefer window seats on short flights
    Use Python for scripts / Use Rust for services
    My son is called Tom / My daughter is called Eve
    Don't call me Bob / Don't call me Rob
    Call me Bob / Call me when it's done
    Call me Bob / Call me at 5
    My address is 5 Main Street / My address is private
    My hobby is chess / My hobby is tennis
    I like Ann / I like Tom
    Never mention my ex / Never mention my job
    I'm from Spain / I live in France
    Keep it short / Keep it simple
    Start emails with "Dear" / Start every reply with "Hello"
    I prefer American films / Use British spelling
    Use metric units / Use the 24-hour clock
    My phone number is 555 / My phone is a Pixel
    """
)

THE_SAME = pairs(
    """
    Use metric units / Please use the metric units
    Use metric units. / Always use metric units
    Use metric units / you should use metric unit
    Don't use emojis / Do not use any emojis!
    Never use emojis / Don't use emojis
    I'm vegetarian / I am vegetarian.
    My dog's called Rex / My dog is called Rex
    Remember that my name is Bob / My name is Bob
    """
)

NOT_THE_SAME = pairs(
    """
    Use emojis / Don't use emojis
    I live in Paris / I lived in Paris
    My name is Ann / Your name is Ann
    I moved to Paris / I moved from Paris
    I write C / I write C++
    I pay in $ / I pay in €
    Use 2 spaces / Use 4 spaces
    My boss is Adams / My boss is Adam
    I like tea / You like tea
    Tom likes Ann / Ann likes Tom
    I like cats / I like dogs
    Use metric units in recipes / Use metric units
    I worked at Acme / I work at Acme
    My budget is 1.5 / My budget is 15
    Answer in upper case / Answer in lower case
    """
)

NOISE = (
    "Room {0} is cold",
    "Customer {0} likes coffee and tea",
    "Ticket {0} was about the units of a report",
    "Visitor {0} lives upstairs and works as a guard",
    "Letter {0} was signed with a stamp",
    "Project {0} uses British steel",
    "Class {0} answers in French and reads in German",
    "Number {0} is short",
)
"""Whose words are those of the statements, and which none of them contradicts."""


def rule(text: str, number: int = 1, scope: Scope = "always", conversation_id: str | None = None) -> Memory:
    return Memory(f"mem-{number}", 1, 1.0, "rule", text, scope=scope, conversation_id=conversation_id)


def example(prompt: str, text: str, number: int = 1) -> Memory:
    return Memory(f"mem-{number}", 1, 1.0, "example", text, prompt)


@pytest.mark.parametrize(("one", "other"), CONTRADICTORY)
def test_contradictory_statements_end_each_other(one: str, other: str) -> None:
    assert contradicts(rule(one, 2), rule(other, 1))
    assert contradicts(rule(other, 2), rule(one, 1))
    assert not says_the_same(rule(one, 2), rule(other, 1))


@pytest.mark.parametrize(("one", "other"), COMPATIBLE)
def test_statements_that_may_both_hold_do_not(one: str, other: str) -> None:
    assert not contradicts(rule(one, 2), rule(other, 1))
    assert not contradicts(rule(other, 2), rule(one, 1))


@pytest.mark.parametrize(("one", "other"), THE_SAME)
def test_statements_that_differ_in_fillers_say_the_same(one: str, other: str) -> None:
    assert says_the_same(rule(one, 2), rule(other, 1))
    assert says_the_same(rule(other, 2), rule(one, 1))
    assert not contradicts(rule(one, 2), rule(other, 1))


@pytest.mark.parametrize(("one", "other"), NOT_THE_SAME)
def test_a_word_that_matters_makes_another_statement(one: str, other: str) -> None:
    assert not says_the_same(rule(one, 2), rule(other, 1))
    assert not says_the_same(rule(other, 2), rule(one, 1))


def test_a_fuller_value_ends_a_shorter_one_but_not_the_other_way_round() -> None:
    short, full = rule("My name is Bob", 1), rule("My name is Bob Smith", 2)
    assert contradicts(full, short)
    assert not contradicts(short, full)


def test_examples_contradict_by_prompt_and_reply() -> None:
    first = example("What is 2+2?", "4", 1)
    assert contradicts(example("what is  2+2", "Four", 2), first)
    assert not contradicts(example("What is 2+2?", " 4. ", 2), first)
    assert not contradicts(example("What is 3+3?", "6", 2), first)
    assert not contradicts(example("", "6", 2), example("", "7", 1))
    assert not contradicts(rule("What is 2+2?", 2), first)
    assert not says_the_same(example("What is 2+2?", "4", 2), first)


@pytest.mark.parametrize("kind", ["rule", "fact"])
def test_rules_and_facts_are_compared_alike(kind: MemoryKind) -> None:
    older = Memory("mem-1", 1, 1.0, kind, "I live in Paris")
    assert contradicts(rule("I live in Rome", 2), older)


def test_what_is_said_for_one_conversation_ends_nothing_elsewhere() -> None:
    everywhere = rule("Answer in French", 1)
    related = rule("Answer in French", 1, "related")
    here = rule("Answer in German", 2, "conversation", "conv-1")
    there = rule("Answer in French", 1, "conversation", "conv-2")
    before = rule("Answer in French", 1, "conversation", "conv-1")
    assert contradicts(rule("Answer in German", 2), related)
    assert contradicts(here, before)
    for older in (everywhere, related, there):
        assert not contradicts(here, older)
    assert not contradicts(rule("Answer in German", 2), before)
    assert not says_the_same(rule("Please answer in French", 2), before)


def test_what_is_ended_or_said_again_is_found_among_many_others(data_dir: Path) -> None:
    """The search for it knows other words for the same, and stems them."""
    with Store.open(data_dir / "familiar.db") as store:
        for number in range(200):
            text = NOISE[number % len(NOISE)].format(number)
            store.put_memory(Memory(f"noise-{number}", 1, 1.0, "fact", text, scope="related"), 1.0)
        either_way = [*CONTRADICTORY, *((other, one) for one, other in CONTRADICTORY), *THE_SAME]
        for number, (older, newer) in enumerate(either_way):
            user = store.users.add(f"user{number}", f"fam-{number}", 1.0).id
            store.put_memory(Memory(f"older-{number}", user, 2.0, "rule", older), 2.0)
            last = store.put_memory(Memory(f"newer-{number}", user, 3.0, "rule", newer), 3.0)
            assert store.memories(user) == [last], (older, newer)
        assert len(store.memories(1)) == 200


@pytest.mark.parametrize("text", ["x" * 32_000, "a-" * 16_000, ", " * 16_000, "my " * 10_000, "'s is not " * 3_000])
def test_a_long_text_is_told_by_its_whole_only_and_costs_nothing(text: str) -> None:
    assert lookups(rule(text)) == ()
    assert not says_the_same(rule(text, 2), rule(text + ".", 1))
    assert not contradicts(rule(text, 2), rule("not " + text, 1))


@given(st.text(), st.text())
def test_any_text_can_be_compared(one: str, other: str) -> None:
    for newer, older in ((one, other), (one, one)):
        contradicts(rule(newer, 2), rule(older, 1))
        says_the_same(rule(newer, 2), rule(older, 1))
    assert not contradicts(rule(one, 2), rule(one, 1))
    assert all(word for group in lookups(rule(one)) for word in group)
