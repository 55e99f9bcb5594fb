"""What ``personas.py`` asks: questions with answers to choose from, of which one is right for this user.

Two public sets, which are read where they lie and not part of the project:

- *Everyday requests* (the embodied part of PAHF): what to bring, and where to put things, as each of 40 users wants it;
  ``original_scenarios`` and ``evolved_scenarios`` are the same users before and after their taste changed, A and B the
  same situations in other words and with other things.
- *Word tasks* (the linguistic part of MemPrompt, Madaan et al. 2022): words with a synonym, an antonym, a homophone, a
  definition or a sentence. The user has expressions of their own for these five, three each, which nobody can know; an
  answer is right when it is of the kind that was meant, so that a model need not know the words.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Choice:
    """A question with answers, of which number ``right`` is what this user wants.

    ``beginnings`` are what is scored, one for each answer: the part in which the answers differ.
    """

    prompt: str
    answers: tuple[str, ...]
    beginnings: tuple[str, ...]
    right: int


@dataclass(frozen=True)
class Everyday:
    """One user's situations, and the same in other words to measure on; ``later`` is after their taste changed."""

    user: str
    taught: tuple[Choice, ...]
    held_out: tuple[Choice, ...]
    later_taught: tuple[Choice, ...]
    later_held_out: tuple[Choice, ...]


KINDS: Mapping[str, str] = {
    "syn": "A word for the same as {word} is",
    "ant": "The opposite of {word} is",
    "hom": "A word that sounds like {word} is",
    "defn": "The meaning of {word} is",
    "sent": "A sentence with {word} is",
}
EXPRESSIONS: Mapping[str, tuple[str, str, str]] = {
    "syn": ("Give me a brother of {word}.", "What else wears the coat of {word}?", "Another one like {word}, please."),
    "ant": ("Turn {word} around.", "What stands across from {word}?", "Who is the enemy of {word}?"),
    "hom": ("What is the echo of {word}?", "Find the ear twin of {word}.", "What do I hear in {word}?"),
    "defn": ("Open up {word}.", "What is inside of {word}?", "Unfold {word} for me."),
    "sent": ("Put {word} to work.", "Let {word} go for a walk.", "Show me {word} at home."),
}


def everyday(folder: Path) -> list[Everyday]:
    """Every user's situations, in the order of the files. Raises OSError, ValueError and KeyError for other files."""
    sets = [
        json.loads((folder / "pahf_embodied" / f"{name}_scenarios_{part}.json").read_text(encoding="utf-8"))
        for name in ("original", "evolved")
        for part in "AB"
    ]
    users = dict.fromkeys(str(row["user"]) for row in sets[0])
    return [Everyday(user, *(_of(user, rows) for rows in sets)) for user in users]


def _of(user: str, rows: Sequence[Mapping[str, Any]]) -> tuple[Choice, ...]:
    found = (_situation(row) for row in rows if row["user"] == user)
    return tuple(each for each in found if each is not None)


def _situation(row: Mapping[str, Any]) -> Choice | None:
    """What to bring, or where to put it; None where what is wanted is not among what is there."""
    brought = row["user_intent_location"] == "pick-up"
    wanted = row["user_intent_object"] if brought else row["user_intent_location"]
    options = [each for each in row["scene_objects"] if brought or each != row["user_intent_object"]]
    if wanted not in options or len(options) < 2:
        return None
    answers = tuple(f"Here is the {each}." if brought else f"It is in the place {each} now." for each in options)
    return Choice(f"{row['task']} There is {row['scene']}.", answers, answers, options.index(wanted))


def word_tasks(folder: Path, seed: int, taught: int, held_out: int) -> tuple[list[Choice], list[Choice]]:
    """Word tasks to teach and others to measure on, of all kinds alike. Raises as ``everyday`` does."""
    path = folder / "memprompt_linguistic_300.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    rng = random.Random(f"{seed}/words")
    rng.shuffle(rows)
    of_kind = {kind: [row for row in rows if row["type"] == kind] for kind in KINDS}
    turns = [row for those in zip(*of_kind.values(), strict=False) for row in those]
    if len(turns) < taught + held_out:
        raise ValueError(f"{path} has {len(turns)} tasks, as many of each kind, but {taught + held_out} are wanted")
    chosen = [_word_task(row) for row in turns[: taught + held_out]]
    return chosen[:taught], chosen[taught:]


def _word_task(row: Mapping[str, Any]) -> Choice:
    meta = row["meta"]
    word = meta.get("word", meta.get("word1"))
    answer = next(meta[name] for name in ("word2", "definition", "sentence") if name in meta)
    prompt = EXPRESSIONS[row["type"]][int(row["template_id"][-1])].format(word=word)
    beginnings = tuple(stem.format(word=word) for stem in KINDS.values())
    answers = tuple(f"{each} {answer.rstrip('.')}." for each in beginnings)
    return Choice(prompt, answers, beginnings, list(KINDS).index(row["type"]))
