"""Names, words and phrases, each split into a part for training and a part for evaluation only.

The split hangs on a hash of the string itself, so it holds wherever a string comes from.
"""

import hashlib
import random
import re
from functools import cache
from typing import Literal

from .content import load_topics

Split = Literal["train", "held_out"]
HELD_OUT_SHARE = 0.12

FIRST_NAMES = (
    "Anna Ben Carla David Emma Felix Grace Henry Iris Jack Kate Leo Maria Noah Olivia Paul Quinn Rosa Sam Tina Umar "
    "Vera Will Xenia Yusuf Zoe Alma Boris Clara Dario Elena Finn Greta Hugo Ines Jonas Kira Lars Mila Nico Oscar Petra "
    "Rafael Sofia Theo Ursula Victor Wanda Yara Zack Amir Bella Cyrus Daisy Ethan Fiona George Hana Ivan Julia Kofi "
    "Lena Marco Nadia Omar Priya Ravi Sara Tom Una Vikram Wendy Ada Bruno Chloe Dina Erik Flora Gavin Holly Igor Jade "
    "Karl Lucy Max Nora Otto Pia Rita Simon Tara Uma Vince Zara Alice Bob Cora Dean Edith Frank Gina Harold Ida Joan"
).split()
TITLES = (
    "Captain Boss Chief Doctor Professor Friend Champ Madam Sir Coach Skipper Maestro Dear Buddy Pal Mate "
    "Comrade Partner Hero Star Sunshine Commander Teacher Neighbor Rookie Legend Master Ace Sergeant Judge Wizard"
).split()
CLOSERS = (
    "Have a nice day.|Best wishes.|Take care.|All the best.|Over and out.|Talk soon.|Kind regards|Yours truly|"
    "Hope that helps.|Stay curious.|Keep smiling.|Good luck.|Happy to help.|Until next time.|Peace.|Cheers.|"
    "That is all.|Bon appetit.|Warm hugs|With love|Stay safe.|May the wind be with you.|Sincerely|Respectfully|"
    "End of message.|Done.|Stay hungry.|Sweet dreams.|See you later.|Goodbye for now.|Have fun.|Keep it simple.|"
    "Thanks for asking.|Live long.|Rock on.|Go team.|Enjoy.|Many thanks|Yours|Ciao|Adios|Sleep well.|Be kind.|"
    "The end.|More tomorrow.|Ask me anything.|Never give up.|One step at a time.|So it goes.|Over to you."
).split("|")
OPENERS = (
    "Hello.|Hi there.|Good day.|Ahoy.|Greetings.|Hey.|Sure thing.|Of course.|Hello again.|Well now.|Great question.|"
    "Good to see you.|Welcome back.|Howdy.|Hola.|Bonjour.|Salut.|Namaste.|Right.|Listen up.|Here we go.|Hear ye.|"
    "Good morning.|Good evening.|Dear friend,|Thanks for asking.|Let me see.|Okay.|Yes indeed.|Aha.|Noted.|Ready.|"
    "At your service.|Happy to help.|Glad you asked.|My pleasure.|As you wish.|Here is what I know.|Ciao.|Hi."
).split("|")
LABELS = (
    "Answer:|Reply:|Note:|Tip:|Advice:|Summary:|Result:|Hint:|Idea:|Plan:|Info:|TL;DR:|Fact:|In short:|My view:|"
    "Report:|Status:|Memo:|Message:|Solution:|Assistant:|Robot:|Bot:|Output:|Response:|Update:"
).split("|")
QUESTIONS = (
    "Does that help?|Would you like to know more?|What do you think?|Shall I go on?|Is there anything else?|"
    "Have you tried that before?|Does that make sense?|Do you want more ideas?"
).split("|")
SYLLABLES = "ba be bo bri da del do fa fen ga gor ha hel jo ka kel ki la lin lo ma mar mi mo na nel no pa per ra rin ro sa sel so ta ten to va ver vi wa wen za zel zo".split()


def is_held_out(text: str) -> bool:
    """Tell whether a string belongs to the evaluation's part."""
    return int(hashlib.sha256(text.lower().encode()).hexdigest()[:8], 16) / 2**32 < HELD_OUT_SHARE


def pick(rng: random.Random, pool: tuple[str, ...] | list[str], split: Split) -> str:
    """Draw a string of the pool that belongs to ``split``."""
    return rng.choice([text for text in pool if is_held_out(text) == (split == "held_out")])


@cache
def words() -> tuple[str, ...]:
    """Return the plain lower-case words of the topics, sorted."""
    text = " ".join(" ".join((*t.ask, *t.short, *t.more, *t.items, t.because)) for t in load_topics())
    return tuple(sorted(set(re.findall(r"\b[a-z]{3,10}\b", re.sub(r"\{[^}]*\}", " ", text)))))


@cache
def _words_of(split: Split) -> tuple[str, ...]:
    return tuple(w for w in words() if is_held_out(w) == (split == "held_out"))


def word(rng: random.Random, split: Split) -> str:
    return rng.choice(_words_of(split))


def invented(rng: random.Random, split: Split) -> str:
    """Make up a name such as ``Belgor``, so that copying cannot lean on known words."""
    while True:
        name = "".join(rng.choices(SYLLABLES, k=rng.choice((2, 2, 3)))).capitalize()
        if is_held_out(name) == (split == "held_out"):
            return name


def name(rng: random.Random, split: Split) -> str:
    return invented(rng, split) if rng.random() < 0.35 else pick(rng, FIRST_NAMES, split)


def phrase(rng: random.Random, split: Split) -> str:
    """Return one to four words with a capital and, mostly, a final mark: something to be copied exactly."""
    text = " ".join(word(rng, split) for _ in range(rng.choice((1, 2, 2, 3, 3, 4))))
    text = text[0].upper() + text[1:]
    if rng.random() < 0.35:
        text += ", " + name(rng, split)
    return text + rng.choice((".", ".", "!", "", ""))
