"""Whole conversations for training, put together from topics, preferences, facts and corrected examples.

The memory block is written exactly as the service writes it (``daemon/prompt.py``); half of all system prompts use it
and the rest state the same in other forms, so that a client's own system prompt works too.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from typing import Protocol
from zlib import crc32

from .claims import about_fact, asked, decisive, judged, of_common_knowledge, of_topic, same_or_not
from .content import Draft, Style, Topic, draft_of, load_topics, lower_first, sentence, write
from .facts import MAKERS, Fact, Maker, capital, question, sample_facts, unknown
from .manners import both, sample_manner
from .pools import Split, name, phrase
from .preferences import KINDS, SENTENCE_GROUPS, Preference, quoted, sample

Message = dict[str, str]
MEMORY_HEADER = "Remember about this user:"
HEADERS = (
    "The user prefers:", "Instructions:", "Rules:", "What you know:", "Notes about the user:", "Follow these rules:",
    "Preferences:", "Facts:", "Keep in mind:",
)  # fmt: skip
PERSONAS = (
    "You are a helpful assistant.", "You are Familiar, a small model that runs on the user's own computer.",
    "You are a friendly assistant.", "You answer everyday questions.", "Be helpful.",
)  # fmt: skip
THANKS = (
    ("Thanks!", "You are welcome."), ("Thank you.", "You are welcome."), ("thanks a lot", "You are welcome."),
    ("Great, thank you!", "Glad to help."), ("Okay.", "Good. Tell me if you need anything else."),
    ("Got it.", "Good. Tell me if you need anything else."), ("That helps.", "I am glad to hear that."),
)  # fmt: skip
MORE = ("Tell me more.", "Anything else?", "What else?", "Can you add something?", "Go on.", "More tips?")
WHY = ("Why?", "Why is that?", "Why does that work?", "What is the reason?", "How come?")
BEFORE = (
    "Hi!", "Hello.", "Hey,", "Hi there,", "Quick question:", "I have a question.", "One more thing:", "Well,", "So,",
    "Please help me.", "Sorry to bother you.", "Now something else.", "Okay,", "Good morning!", "I wonder:",
)  # fmt: skip
AFTER = (
    "Thanks!", "Please.", "Thank you.", "I have no idea.", "I am new to this.", "Any advice?", "Can you help me?",
    "What do you think?", "I am curious.", "It is for a friend.", "Keep it simple.", "I never did this before.",
)  # fmt: skip
ACKNOWLEDGE = ("Okay, I will do that.", "Understood. I will do that.", "Sure, I will.", "Noted. I will do that.")
REMEMBERED = ("Okay, I will remember that.", "Thank you, I will remember that.", "Noted.")


EMPHASIS = {
    "british": 3.0, "metric": 2.5, "clock24": 2.5, "iso_date": 6.0, "dmy_date": 6.0, "long": 3.5, "address": 2.2,
    "excited": 2.5, "three_sentences": 1.8, "two_sentences": 1.2, "label": 1.5, "hedge": 0.5, "question": 0.6,
    "number_words": 1.5, "bullets": 0.7, "lower": 0.7, "upper": 0.7,
}  # fmt: skip
"""Kinds that the editions so far followed least are drawn more often."""
WITH_FACTS = tuple(
    k for k in KINDS if k.group in {"closer", "opener", "address", "case", "hedge"} or k.name == "excited"
)
"""Kinds that a reply of one stated fact can follow."""


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str, decides: Iterable[str] = ()) -> Message:
    """Say ``text``, of which some words decide whether it is right: those count for more in training."""
    message = {"role": "assistant", "content": text}
    if words := "\n".join(decides):
        message["decides"] = words
    return message


def changed(text: str, plain: str) -> list[str]:
    """Return the words of a text that its plain form lacks; none where most are others, as all matter alike then."""
    words, known = text.split(), set(plain.split())
    new = [word for word in words if word not in known]
    return list(dict.fromkeys(new)) if 2 * len(new) <= len(words) else []


def in_style(draft: Draft, style: Style) -> Message:
    """Say a draft in a style.

    What is written otherwise than without one decides, and so does a quantity, time, date or spelling of which there
    are two forms: if only the form that is asked for did, it would come unasked too.
    """
    text = write(draft, style)
    plain = [write(draft, Style()), *(sentence(item, Style()) for item in draft.items)]
    other = write(draft, opposite(style))
    return assistant(text, dict.fromkeys((*changed(text, " ".join(plain)), *changed(text, other))))


def opposite(style: Style) -> Style:
    """Return the style with the other form of whatever has two."""
    return replace(
        style,
        metric=not style.metric,
        british=not style.british,
        clock24=not style.clock24,
        date="us" if style.date != "us" else "iso",
        number_words=not style.number_words,
    )


@cache
def topics_to_judge_by() -> tuple[Topic, ...]:
    """Return the third of the topics whose third way to ask is kept for evaluation."""
    return tuple(t for t in load_topics() if crc32(t.topic.encode()) % 3 == 0)


def ask(rng: random.Random, topic: Topic, split: Split) -> str:
    """Choose a way to ask; the third is kept for evaluation in ``topics_to_judge_by``."""
    if split == "held_out":
        return topic.ask[2]
    kept = topic in topics_to_judge_by()
    return as_typed(rng, rng.choice([a for i, a in enumerate(topic.ask) if i != 2 or not kept]))


def as_typed(rng: random.Random, text: str) -> str:
    """Put something before or after a question, or write it carelessly, in one case of three."""
    roll = rng.random()
    if roll < 0.1:
        return f"{rng.choice(BEFORE)} {lower_first(text) if rng.random() < 0.5 else text}"
    if roll < 0.2:
        return f"{text} {rng.choice(AFTER)}"
    if roll < 0.28:
        return text.lower().rstrip("?.!")
    letters = [i for i in range(1, len(text) - 1) if text[i].isalpha()]
    if roll < 0.36 and letters:
        at = rng.choice(letters)
        rest = text[at:]
        return text[:at] + rng.choice((rest[1:], rest[0] + rest, rest[1] + rest[0] + rest[2:]))
    return text


def example_line(prompt: str, text: str) -> str:
    """One corrected example, as ``daemon/prompt.py`` writes it."""
    return f'To "{prompt}" the right reply was "{text}"'


def system_prompt(rng: random.Random, lines: list[str]) -> list[Message]:
    """State ``lines`` in a system message, in one of the forms, or nothing when there are none."""
    if not lines:
        return [{"role": "system", "content": rng.choice(PERSONAS)}] if rng.random() < 0.15 else []
    form = rng.random()
    if form < 0.55:
        text = "\n- ".join((MEMORY_HEADER, *lines))
        if rng.random() < 0.2:
            text = f"{rng.choice(PERSONAS)}\n\n{text}"
    elif form < 0.7:
        text = "\n- ".join((rng.choice(HEADERS), *lines))
    elif form < 0.85:
        text = " ".join(capital(line) for line in lines)
    else:
        text = f"{rng.choice(PERSONAS)} " + " ".join(capital(line) for line in lines)
    return [{"role": "system", "content": text}]


def styled(
    rng: random.Random, preferences: list[Preference], topics: Sequence[Topic] = ()
) -> tuple[Topic, Draft, Style]:
    """Find a topic whose content shows every preference, and return it with a reply's draft and its style."""
    style = Style()
    for preference in preferences:
        style = preference.apply(style)
    length = next((p.sentences for p in preferences if p.sentences), None)
    for _ in range(400):
        topic = rng.choice(topics or load_topics())
        draft = draft_of(topic, rng, length or rng.choice((1, 2, 2)))
        if all(p.needs(draft) for p in preferences):
            break
    return topic, draft, style


def everyday(rng: random.Random, preferences: list[Preference] | None = None) -> list[Message]:
    """One to three exchanges on everyday topics, under the same preferences throughout."""
    preferences = preferences or []
    topic, draft, style = styled(rng, preferences)
    turns = [user(ask(rng, topic, "train")), in_style(draft, style)]
    follow = rng.random()
    plain = not preferences or {p.kind for p in preferences} <= {"closer", "opener", "label", "address"}
    if plain and follow < 0.25:
        roll = rng.random()
        if roll < 0.4:
            text, answer = rng.choice(THANKS)
            turns += [user(text), in_style(Draft((answer,)), style)]
        elif roll < 0.7:
            draft = Draft(tuple(rng.sample(topic.more, min(2, len(topic.more)))))
            turns += [user(rng.choice(MORE)), in_style(draft, style)]
        else:
            draft = Draft((f"This works because {topic.because}.",))
            turns += [user(rng.choice(WHY)), in_style(draft, style)]
    elif follow > 0.75:
        topic, draft, style = styled(rng, preferences)
        turns += [user(ask(rng, topic, "train")), in_style(draft, style)]
    return turns


def with_preferences(rng: random.Random) -> list[Message]:
    """Stated preferences, alone or together, sometimes among facts that do not matter here."""
    preferences = sample(rng, "train", rng.choices((1, 2, 3), (0.5, 0.32, 0.18))[0], emphasis=EMPHASIS)
    lines = [p.text for p in preferences]
    if rng.random() < 0.25:
        lines += [capital(f.text) for f in sample_facts(rng, "train", rng.choice((1, 2)))]
        rng.shuffle(lines)
    where = rng.random()
    if where < 0.82:
        return system_prompt(rng, lines) + everyday(rng, preferences)
    if where < 0.91:  # asked for in the message itself
        turns = everyday(rng, preferences)[:2]
        said = " ".join(p.text for p in preferences)
        turns[0] = user(f"{turns[0]['content']} {said}" if rng.random() < 0.6 else f"{said} {turns[0]['content']}")
        return turns
    return [user(" ".join(lines)), assistant(rng.choice(ACKNOWLEDGE)), *everyday(rng, preferences)]


class Writer(Protocol):
    """Makes the assistant's turn that says a plain text, of which some words decide, in a conversation's manner."""

    def __call__(self, text: str, decides: Iterable[str] = (), /) -> Message: ...


def _manner(rng: random.Random, lines: list[str]) -> Writer:
    """Choose how the replies of one conversation are written, and add to ``lines`` what the prompt says of it.

    Nothing special; preferences; manners of random words and marks, stated or shown by corrected examples; or a
    manner that the prompt does not foretell, as one that an adapter has learned: there the reply's beginning is given.
    """
    roll = rng.random()
    written, manners, given = Style(), [], 0
    if roll < 0.3:
        pass
    elif roll < 0.52:
        for preference in sample(rng, "train", rng.choice((1, 1, 1, 2, 3)), WITH_FACTS, emphasis=EMPHASIS):
            written = preference.apply(written)
            lines.append(preference.text)
    else:
        manners = [sample_manner(rng) for _ in range(rng.choice((1, 1, 1, 2)))]
        if roll < 0.7:
            lines += [manner.text for manner in manners]
        elif roll < 0.8:
            for _ in range(rng.choice((1, 2, 2))):
                topic, draft, style = styled(rng, [])
                lines.append(example_line(ask(rng, topic, "train"), both(manners, write(draft, style))))
        else:
            while manners[0].foretold is None:
                manners = [sample_manner(rng)]
            manners = manners[:1]
            given = manners[0].foretold

    def writer(text: str, decides: Iterable[str] = (), /) -> Message:
        nonlocal given
        content = both(manners, write(Draft((capital(text),)), written))
        message = assistant(content, [*decides, *changed(content, capital(text))])
        if given:  # later replies of the conversation can take the manner from the first
            message["given"] = message["content"][:given]
            given = 0
        return message

    return writer


def about_facts(rng: random.Random) -> list[Message]:
    """Facts in the prompt, asked for in any manner; some are not there, some are claimed rightly or wrongly."""
    count = rng.choices((1, 2, 3, 4, 6), (0.15, 0.25, 0.25, 0.25, 0.1))[0]
    makers = MAKERS if rng.random() < 0.65 else [rng.choice(MAKERS)]
    facts = sample_facts(rng, "train", count, makers)
    lines = [capital(f.text) for f in facts]
    writer = _manner(rng, lines)
    rng.shuffle(lines)
    if rng.random() < 0.8:
        turns = system_prompt(rng, lines)
    else:
        turns = [user(" ".join(lines)), assistant(rng.choice(REMEMBERED))]
    for _ in range(rng.choice((1, 2, 3, 4))):
        turns += _fact_turn(rng, facts, makers, writer)
    return turns


def _fact_turn(rng: random.Random, facts: list[Fact], makers: Sequence[Maker], writer: Writer) -> list[Message]:
    roll = rng.random()
    if roll < 0.25:  # not there: another fact, of a kind that may look close
        known = {f.key for f in facts}
        while (missing := sample_facts(rng, "train", 1, makers)[0]).key in known:
            pass
        return [user(question(rng, missing, "train")), writer(unknown(rng, missing), ["I do not know"])]
    fact = rng.choice(facts)
    if roll < 0.6:
        claim = about_fact(rng, fact)
        return [user(asked(rng, claim, "train")), writer(*judged(rng, claim))]
    return [user(question(rng, fact, "train")), writer(fact.answer, [fact.answer.split()[0], fact.value])]


def with_claims(rng: random.Random) -> list[Message]:
    """Claims about what everybody knows or a topic says, in any manner; facts that do not matter may stand by."""
    lines = [capital(f.text) for f in sample_facts(rng, "train", rng.choice((1, 2, 3)))] if rng.random() < 0.3 else []
    writer = _manner(rng, lines)
    rng.shuffle(lines)
    turns = system_prompt(rng, lines)
    for _ in range(rng.choice((1, 2, 3))):
        claim = (of_common_knowledge if rng.random() < 0.75 else of_topic)(rng)
        turns += [user(asked(rng, claim, "train")), writer(*judged(rng, claim))]
    return turns


def in_any_manner(rng: random.Random) -> list[Message]:
    """Everyday questions in manners of random words and marks, which are stated, or begun and not foretold."""
    lines: list[str] = []
    manners = [sample_manner(rng) for _ in range(rng.choices((1, 2, 3), (0.6, 0.3, 0.1))[0])]
    foretold = manners[0].foretold if len(manners) == 1 and rng.random() < 0.4 else None
    if foretold is None:
        lines += [manner.text for manner in manners]
    if rng.random() < 0.25:
        lines += [capital(f.text) for f in sample_facts(rng, "train", rng.choice((1, 2)))]
        rng.shuffle(lines)
    turns = system_prompt(rng, lines) + everyday(rng)
    replies = [turn for turn in turns if turn["role"] == "assistant"]
    for turn in replies:
        plain = turn["content"]
        turn.update(assistant(both(manners, plain), changed(both(manners, plain), plain)))
    if foretold is not None:
        replies[0]["given"] = replies[0]["content"][:foretold]
    return turns


def with_examples(rng: random.Random) -> list[Message]:
    """Corrected examples in the prompt: the same question again, or another in the manner of the example."""
    if rng.random() < 0.3:
        return _same_question(rng)
    visible = tuple(k for k in KINDS if k.group not in SENTENCE_GROUPS - {"length"})
    preferences = sample(rng, "train", 1 if rng.random() < 0.8 else 2, visible)
    lines = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        topic, draft, style = styled(rng, preferences)
        lines.append(example_line(ask(rng, topic, "train"), write(draft, style)))
    turns = [{"role": "system", "content": "\n- ".join((MEMORY_HEADER, *lines))}]
    return turns + everyday(rng, preferences)[:2]


def _same_question(rng: random.Random) -> list[Message]:
    """The example answers the very question: its text is the reply, whatever the model would have said."""
    topic, other = rng.sample(load_topics(), 2)
    if rng.random() < 0.5:
        reply = write(draft_of(topic, rng, rng.choice((1, 2))), Style())
        if rng.random() < 0.5:
            reply += f" Ask {name(rng, 'train')} about it."
        asks = (ask(rng, topic, "train"), ask(rng, topic, "train"))
    else:
        fact = sample_facts(rng, "train", 1)[0]
        reply = capital(fact.answer)
        asks = (question(rng, fact, "train"), question(rng, fact, "train"))
    lines = [example_line(asks[0], reply)]
    if rng.random() < 0.4:
        lines.append(example_line(ask(rng, other, "train"), write(draft_of(other, rng, 1), Style())))
        rng.shuffle(lines)
    return [{"role": "system", "content": "\n- ".join((MEMORY_HEADER, *lines))}, user(asks[1]), assistant(reply)]


def plain(rng: random.Random) -> list[Message]:
    """Everyday exchanges with nothing stated, or only facts that do not matter."""
    lines = [capital(f.text) for f in sample_facts(rng, "train", rng.choice((1, 2, 3)))] if rng.random() < 0.25 else []
    return system_prompt(rng, lines) + everyday(rng)


REPEAT = (
    "Repeat after me: {p}",
    "Say this: {p}",
    "Repeat: {p}",
    "Copy this text: {p}",
    "Write this again: {p}",
    "Echo {p}",
)


def repeat(rng: random.Random) -> list[Message]:
    """Text with nothing to guess from, to be said again: the densest practice of copying there is.

    Half of it in another manner, stated or given, since copying has to work there too.
    """
    text = " ".join(phrase(rng, "train") for _ in range(rng.choice((1, 2, 2, 3, 4))))
    if rng.random() < 0.5:
        text += f" {name(rng, 'train')} {rng.randint(10, 99999)}"
    turns = [user(rng.choice(REPEAT).format(p=quoted(rng, text))), assistant(text)]
    if rng.random() < 0.5:
        return turns
    manner = sample_manner(rng)
    turns[1] = assistant(manner.apply(text), changed(manner.apply(text), text))
    if manner.foretold is not None and rng.random() < 0.5:
        turns[1]["given"] = turns[1]["content"][: manner.foretold]
        return turns
    return system_prompt(rng, [manner.text]) + turns


def compare(rng: random.Random) -> list[Message]:
    """Whether two texts are the same, several times over: what telling a true claim from a false one rests on."""
    lines: list[str] = []
    writer = _manner(rng, lines) if rng.random() < 0.3 else assistant
    turns = system_prompt(rng, lines)
    for _ in range(rng.choice((2, 3, 4, 5))):
        question, reply = same_or_not(rng, "train")
        turns += [user(question), writer(reply, [decisive(reply)])]
    return turns


PARTS = (
    (0.33, with_preferences), (0.26, about_facts), (0.1, with_claims), (0.08, in_any_manner), (0.09, with_examples),
    (0.35, plain), (0.04, repeat), (0.04, compare),
)  # fmt: skip


def sample_conversation(rng: random.Random) -> list[Message]:
    """Draw one training conversation."""
    make = rng.choices([part for _, part in PARTS], [weight for weight, _ in PARTS])[0]
    return make(rng)
