"""Facts stated in a prompt, the questions that ask for them, and what to say when a fact is not there.

Values are names, invented words, numbers, times and things, drawn so that an answer can only come from the prompt.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .pools import Split, is_held_out, name, phrase, word

COLORS = "red blue green yellow black white brown purple orange pink silver golden gray violet".split()
THINGS = (
    "bicycle car umbrella coat hat bag scarf sofa door kite boat jacket mug lamp chair suitcase bike cup blanket tent "
    "helmet notebook piano guitar watch ring desk backpack rug curtain"
).split()
PETS = "dog cat rabbit horse parrot hamster goldfish turtle pony kitten puppy goat canary".split()
RELATIVES = "sister brother mother father aunt uncle cousin grandmother neighbor boss wife husband daughter son".split()
PLACES = "shop library museum office pool bakery gym school bank cafe market theater pharmacy station zoo".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
FOODS = "pizza soup salad pasta rice pancakes fish curry bread cheese tacos noodles apples cake mushrooms beans".split()
JOBS = (
    "teacher nurse baker pilot farmer doctor lawyer painter singer writer plumber driver gardener chef tailor barber"
).split()
CITIES = (
    "Paris London Rome Berlin Madrid Oslo Vienna Dublin Boston Chicago Tokyo Lima Cairo Athens Lisbon Prague Denver "
    "Seattle Toronto Sydney Delhi Geneva Warsaw Helsinki Munich Austin Havana Nairobi"
).split()
EVENTS = "meeting party concert wedding exam interview flight appointment dinner class game lesson".split()
ROOMS = "kitchen garage attic basement hall bedroom garden cellar closet drawer cupboard".split()
ITEMS = "keys wallet glasses passport charger tickets tools batteries letters camera umbrella phone".split()

UNKNOWN = ("I do not know {what}.", "I do not know {what}. You have not told me.")


@dataclass(frozen=True)
class Fact:
    """A statement, the questions it answers, the answer as a sentence, and the string an answer must contain.

    ``what`` names the thing asked for, as in "I do not know what your dog is called."
    """

    key: str
    text: str
    questions: tuple[str, ...]
    answer: str
    value: str
    what: str
    wrong: str


def _value(rng: random.Random, split: Split, pool: list[str]) -> tuple[str, str]:
    part = [v for v in pool if is_held_out(v) == (split == "held_out")] or pool
    value = rng.choice(part)
    return value, rng.choice([v for v in pool if v != value])


def _owner(rng: random.Random, split: Split) -> tuple[str, str, str]:
    """Return (as the user says it, as the reply says it, key)."""
    if rng.random() < 0.5:
        return "my", "your", "my"
    if rng.random() < 0.35:
        relative = rng.choice(RELATIVES)
        return f"my {relative}'s", f"your {relative}'s", relative
    owner = name(rng, split)
    return f"{owner}'s", f"{owner}'s", owner


def _time(rng: random.Random) -> str:
    return f"{rng.randint(1, 12)}{rng.choice(('', '', ':30', ':15', ':45'))} {rng.choice(('am', 'pm'))}"


def _called(rng: random.Random, split: Split) -> Fact:
    user, reply, key = _owner(rng, split)
    pet = rng.choice(PETS + RELATIVES[:6] + ["boat", "car", "house", "band", "school", "street"])
    value, wrong = name(rng, split), name(rng, split)
    verb = rng.choice(("is called", "is named"))
    text = rng.choice((f"{user} {pet} {verb} {value}.", f"the name of {user} {pet} is {value}."))
    asks = (
        f"What is {user} {pet} called?", f"What is the name of {user} {pet}?", f"What is {user} {pet}'s name?",
        f"Do you know what {user} {pet} is called?", f"Tell me the name of {user} {pet}.", f"whats {user} {pet}'s name",
        f"Can you remind me what {user} {pet} is called?",
    )  # fmt: skip
    return Fact(f"called/{key}/{pet}", text, asks, f"{reply} {pet} {verb} {value}.", value,
                f"what {reply} {pet} is called", wrong)  # fmt: skip


def _color(rng: random.Random, split: Split) -> Fact:
    user, reply, key = _owner(rng, split)
    thing = rng.choice(THINGS)
    value, wrong = _value(rng, split, COLORS)
    asks = (
        f"What color is {user} {thing}?", f"Which color is {user} {thing}?", f"What is the color of {user} {thing}?",
        f"Do you remember the color of {user} {thing}?", f"Tell me the color of {user} {thing}.",
        f"what color does {user} {thing} have", f"Can you say which color {user} {thing} has?",
    )  # fmt: skip
    return Fact(f"color/{key}/{thing}", f"{user} {thing} is {value}.", asks, f"{reply} {thing} is {value}.", value,
                f"the color of {reply} {thing}", wrong)  # fmt: skip


def _opens(rng: random.Random, split: Split) -> Fact:
    place, verb = rng.choice(PLACES), rng.choice(("opens", "closes"))
    value, wrong = _time(rng), _time(rng)
    base = verb[:-1]
    asks = (
        f"When does the {place} {base}?", f"What time does the {place} {base}?", f"At what time does the {place} {base}?",
        f"Do you know when the {place} {verb}?", f"Tell me when the {place} {verb}.", f"when does the {place} {base}",
    )  # fmt: skip
    return Fact(f"{verb}/{place}", f"the {place} {verb} at {value}.", asks, f"the {place} {verb} at {value}.", value,
                f"when the {place} {verb}", wrong)  # fmt: skip


def _lives(rng: random.Random, split: Split) -> Fact:
    who, reply, asked = _person(rng, split)
    value, wrong = _value(rng, split, CITIES)
    verb, s = ("live", "") if who == "I" else ("live", "s")
    do = "do" if who == "I" else "does"
    asks = (
        f"Where {do} {who} {verb}?", f"In which city {do} {who} {verb}?", f"Which city {do} {who} {verb} in?",
        f"Do you know where {who} {verb}{s}?", f"Tell me where {who} {verb}{s}.", f"what city {do} {who} {verb} in",
    )  # fmt: skip
    rs = "" if reply == "you" else "s"
    return Fact(f"lives/{asked}", f"{who} {verb}{s} in {value}.", asks, f"{reply} live{rs} in {value}.", value,
                f"where {reply} live{rs}", wrong)  # fmt: skip


def _person(rng: random.Random, split: Split) -> tuple[str, str, str]:
    if rng.random() < 0.35:
        return "I", "you", "I"
    if rng.random() < 0.4:
        relative = rng.choice(RELATIVES)
        return f"my {relative}", f"your {relative}", relative
    who = name(rng, split)
    return who, who, who


def _job(rng: random.Random, split: Split) -> Fact:
    who, reply, key = _person(rng, split)
    value, wrong = _value(rng, split, JOBS)
    be, rbe = ("am" if who == "I" else "is"), ("are" if reply == "you" else "is")
    do = "do" if who == "I" else "does"
    asks = (
        f"What {do} {who} do for work?", f"What is {'my' if who == 'I' else who + chr(39) + 's'} job?",
        f"What {do} {who} do for a living?", f"Which job {do} {who} have?", f"Tell me what {who} {be} by profession.",
        f"what kind of work {do} {who} do",
    )  # fmt: skip
    return Fact(f"job/{key}", f"{who} {be} a {value}.", asks, f"{reply} {rbe} a {value}.", value,
                f"what {reply} {do} for work" if reply != "you" else "what you do for work", wrong)  # fmt: skip


def _likes(rng: random.Random, split: Split) -> Fact:
    who, reply, key = _person(rng, split)
    value, wrong = _value(rng, split, FOODS)
    verb = rng.choice(("like", "hate"))
    s, rs = ("" if who == "I" else "s"), ("" if reply == "you" else "s")
    do = "do" if who == "I" else "does"
    asks = (
        f"What food {do} {who} {verb}?", f"Which food {do} {who} {verb}?", f"Do you know what food {who} {verb}{s}?",
        f"Tell me which food {who} {verb}{s}.", f"what dish {do} {who} {verb}",
    )  # fmt: skip
    return Fact(f"{verb}/{key}", f"{who} {verb}{s} {value}.", asks, f"{reply} {verb}{rs} {value}.", value,
                f"which food {reply} {verb}{rs}", wrong)  # fmt: skip


def _event(rng: random.Random, split: Split) -> Fact:
    user, reply, key = _owner(rng, split)
    event = rng.choice(EVENTS)
    if rng.random() < 0.5:
        value, wrong, prefix, ask = *_value(rng, split, DAYS), "on", "On which day is"
    else:
        value, wrong, prefix, ask = _time(rng), _time(rng), "at", "At what time is"
    asks = (
        f"When is {user} {event}?", f"{ask} {user} {event}?", f"Do you know when {user} {event} is?",
        f"Tell me when {user} {event} is.", f"when is {user} {event}", f"Can you remind me when {user} {event} is?",
    )  # fmt: skip
    return Fact(f"event/{key}/{event}", f"{user} {event} is {prefix} {value}.", asks,
                f"{reply} {event} is {prefix} {value}.", value, f"when {reply} {event} is", wrong)  # fmt: skip


def _code(rng: random.Random, split: Split) -> Fact:
    user, reply, key = _owner(rng, split)
    what = rng.choice(("wifi password", "door code", "room number", "locker code", "phone number", "order number",
                       "gate number", "seat number", "bus number", "alarm code"))  # fmt: skip

    def make() -> str:
        digits = "".join(rng.choices("0123456789", k=rng.choice((2, 3, 4, 4, 6))))
        return word(rng, split) + digits if what == "wifi password" else digits

    value, wrong = make(), make()
    asks = (
        f"What is {user} {what}?", f"Do you know {user} {what}?", f"Can you tell me {user} {what}?",
        f"Tell me {user} {what}.", f"whats {user} {what}", f"Remind me of {user} {what}.",
    )  # fmt: skip
    return Fact(f"code/{key}/{what}", f"{user} {what} is {value}.", asks, f"{reply} {what} is {value}.", value,
                f"{reply} {what}", wrong)  # fmt: skip


def _where(rng: random.Random, split: Split) -> Fact:
    user, reply, key = _owner(rng, split)
    thing = rng.choice(ITEMS)
    value, wrong = _value(rng, split, ROOMS)
    be = "are" if thing.endswith("s") and thing != "glass" else "is"
    asks = (
        f"Where {be} {user} {thing}?", f"Where can I find {user} {thing}?", f"Do you know where {user} {thing} {be}?",
        f"Tell me where {user} {thing} {be}.", f"where did i put {user} {thing}", f"In which place {be} {user} {thing}?",
    )  # fmt: skip
    return Fact(f"where/{key}/{thing}", f"{user} {thing} {be} in the {value}.", asks,
                f"{reply} {thing} {be} in the {value}.", value, f"where {reply} {thing} {be}", wrong)  # fmt: skip


def _age(rng: random.Random, split: Split) -> Fact:
    who, reply, key = _person(rng, split)
    value, wrong = str(rng.randint(2, 99)), str(rng.randint(2, 99))
    be, rbe = ("am" if who == "I" else "is"), ("are" if reply == "you" else "is")
    asks = (
        f"How old {be} {who}?", f"What age {be} {who}?", f"Do you know how old {who} {be}?",
        f"Tell me how old {who} {be}.", f"how old {be} {who}",
    )  # fmt: skip
    return Fact(f"age/{key}", f"{who} {be} {value} years old.", asks, f"{reply} {rbe} {value} years old.", value,
                f"how old {reply} {rbe}", wrong)  # fmt: skip


def _motto(rng: random.Random, split: Split) -> Fact:
    user, reply, key = _owner(rng, split)
    what = rng.choice(("favorite word", "motto", "favorite book", "favorite song", "team name", "nickname"))
    value, wrong = phrase(rng, split).rstrip(".!"), phrase(rng, split).rstrip(".!")
    asks = (
        f"What is {user} {what}?", f"Do you know {user} {what}?", f"Tell me {user} {what}.", f"whats {user} {what}",
    )  # fmt: skip
    return Fact(f"motto/{key}/{what}", f"{user} {what} is {value}.", asks, f"{reply} {what} is {value}.", value,
                f"{reply} {what}", wrong)  # fmt: skip


Maker = Callable[[random.Random, Split], Fact]
MAKERS: tuple[Maker, ...] = (
    _called, _called, _color, _opens, _lives, _job, _likes, _event, _code, _where, _age, _motto,
)  # fmt: skip


def capital(text: str) -> str:
    return text[0].upper() + text[1:]


def sample_facts(rng: random.Random, split: Split, count: int, makers: Sequence[Maker] = MAKERS) -> list[Fact]:
    """Draw ``count`` facts about different things; with few makers they are alike and easily confused."""
    facts: dict[str, Fact] = {}
    while len(facts) < count:
        fact = rng.choice(makers)(rng, split)
        facts.setdefault(fact.key, fact)
    return list(facts.values())


def question(rng: random.Random, fact: Fact, split: Split) -> str:
    """Choose a question for a fact; the last way to ask is kept for evaluation."""
    asks = fact.questions[-1:] if split == "held_out" else fact.questions[:-1]
    return capital(rng.choice(asks)) if rng.random() < 0.85 else rng.choice(asks)


def unknown(rng: random.Random, fact: Fact) -> str:
    return rng.choice(UNKNOWN).format(what=fact.what)
