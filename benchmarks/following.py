"""Measure whether the built-in model does what it was told once, on the requests that come next.

``python benchmarks/following.py`` starts a service, gives each case of ``following_cases.py`` a user of its own who
remembers ten other things, asks a prompt, says the correction, rule or fact through the case's door, and then asks
three held-out prompts of ``familiar:memory`` at temperature 0. The same prompts go to ``familiar:base``: with nothing,
with the words put into the system message by the client, and with the words put before the prompt. Where one of these
two does it, the model can do it when told directly; ``followed_where_it_can`` is the share of those that memory does.

The memories that were recalled are then put before ``familiar:base`` in other forms (``following_forms.py``), so that
what differs is the form alone. Shares are percent of held-out prompts. What is left out: which memories are found
among many (``recall.py``), and larger models, which follow nearly any form.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import following_cases
import httpx
import people
from common import BUILTIN, Report, arguments, progress
from following_cases import Case
from following_forms import EARLIER, FORMS, POSITIONS
from people import BASE, MEMORY, Answer, Person
from servers import Site, Sizes, start_familiar

from familiar.daemon import sentence_model, settings
from familiar.memory.types import Memory, Message

MAX_TOKENS = 120
CONTEXT_TOKENS = 1024
TARGET = 90.0


@dataclass(frozen=True)
class Asked:
    """One held-out prompt: whether each way of asking gave a reply that follows, and whether the memory was shown.

    ``beside`` counts the other memories that were shown.
    """

    case: Case
    base: bool
    told: bool
    memory: bool
    shown: bool
    beside: int
    forms: dict[str, bool]


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--replies", action="store_true", help="show the replies that do not follow")
    given = parser.parse_args()
    cases = following_cases.load()[:: 3 if given.quick else 1]
    report = Report()
    by_meaning = sentence_model.resolve(settings.load({}), progress) is not None
    asked: list[Asked] = []
    with tempfile.TemporaryDirectory(prefix="familiar-following-") as folder:
        work, database = Path(folder), Path(folder) / "data" / "familiar.db"
        first, *keys = people.add(database, 1 + len(cases))
        sizes = Sizes(threads=given.threads, context_tokens=CONTEXT_TOKENS, slots=1)
        with start_familiar(Site(None, work), BUILTIN, sizes, data_dir=database.parent, key=first) as service:
            if by_meaning:
                with Person(service.address, first) as person:
                    people.wait_for_embedder(person, database)
            for number, (case, key) in enumerate(zip(cases, keys, strict=True)):
                progress(f"{number + 1}/{len(cases)} {case.kind}: {case.name}")
                with Person(service.address, key) as person:
                    asked += _measure(person, case, number, show=given.replies)
    report.add("cases", len(cases))
    report.add("by_meaning", by_meaning)
    _tell(report, asked)
    report.at_least("followed_where_it_can", _share(asked, lambda each: each.memory, lambda each: each.told), TARGET)
    report.finish(given.json)


def _measure(person: Person, case: Case, number: int, *, show: bool) -> list[Asked]:
    """Say it once, and ask what it applies to in every way."""
    for body in following_cases.beside(number):
        person.post("/v1/memories", body)
    before = set(person.memories())
    _say(person, case)
    memories = person.memories()
    said = set(memories) - before
    if not said:
        progress(f"  nothing was remembered of {case.say!r}")
    asked = []
    for prompt in case.held_out:
        trial = _Trial(person, case, prompt, show)
        shown = trial.ask("memory", [_user(prompt)], MEMORY).memory_ids
        recalled = [memories[each] for each in shown]
        trial.ask("base", [_user(prompt)])
        trial.ask("told in system", [Message(role="system", content=case.told), _user(prompt)])
        trial.ask("told by user", [_user(f"{case.told} {prompt}")])
        trial.ask_in_every_form(recalled)
        follows, beside = trial.follows, len(set(shown) - said)
        asked.append(
            Asked(
                case,
                base=follows["base"],
                told=follows["told in system"] or follows["told by user"],
                memory=follows["memory"],
                shown=len(shown) > beside,
                beside=beside,
                forms={name: follows[name] for name in (*FORMS, *POSITIONS)},
            )
        )
    return asked


class _Trial:
    """One held-out prompt, asked in several ways; ``follows`` has what came of each."""

    def __init__(self, person: Person, case: Case, prompt: str, show: bool) -> None:
        self.follows: dict[str, bool] = {}
        self._person = person
        self._case = case
        self._prompt = prompt
        self._show = show
        self._known: dict[str, Answer] = {}

    def ask(self, name: str, messages: Sequence[Message], model: str = BASE) -> Answer:
        """Ask, and keep under ``name`` whether the reply follows. What was asked already is not asked again."""
        request = json.dumps([model, messages])
        if request not in self._known:
            self._known[request] = self._person.ask(model, messages, MAX_TOKENS)
        answer = self._known[request]
        self.follows[name] = self._case.follows(answer.text)
        if self._show and not self.follows[name]:
            progress(f"    {self._prompt} | {name} {list(answer.memory_ids)}: {' / '.join(answer.text.splitlines())}")
        return answer

    def ask_in_every_form(self, recalled: Sequence[Memory]) -> None:
        """Put the memories before the base model in each form."""
        for name, form in FORMS.items():
            self.ask(name, form(recalled, [_user(self._prompt)]))
        for name, form in POSITIONS.items():
            self.ask(name, form(recalled, [*EARLIER, _user(self._prompt)]))


def _say(person: Person, case: Case) -> None:
    """Ask the first prompt, and say what is to be remembered through the case's door."""
    first = _user(case.ask)
    answer = person.ask(MEMORY, [first], MAX_TOKENS)
    said = case.say.format(reply=answer.text)
    if case.door == "rule":
        person.post("/v1/feedback", {"rule": said})
    elif case.door == "note":
        person.post("/v1/feedback", {"completion_id": answer.id, "correction": said, "note": case.note})
    elif case.door == "correction":
        person.post("/v1/feedback", {"completion_id": answer.id, "correction": said})
    elif case.door == "memory":
        person.post("/v1/memories", {"text": said})
    elif case.door == "history":
        edited = Message(role="assistant", content=said)
        person.ask(MEMORY, [first, edited, _user("Thank you.")], MAX_TOKENS)
    else:
        person.ask(MEMORY, [first, Message(role="assistant", content=answer.text), _user(said)], MAX_TOKENS)
        for guess in person.get("/v1/feedback", state="pending")["data"]:
            person.post(f"/v1/feedback/{guess['id']}/confirm")


def _user(text: str) -> Message:
    return Message(role="user", content=text)


def _tell(report: Report, asked: Sequence[Asked]) -> None:
    """Add the figures of all, by kind and by door, and of each form."""
    groups: dict[str, list[Asked]] = {"": list(asked)}
    for kind in dict.fromkeys(each.case.kind for each in asked):
        groups[f"kind.{kind}."] = [each for each in asked if each.case.kind == kind]
    for door in dict.fromkeys(each.case.door for each in asked):
        groups[f"door.{door}."] = [each for each in asked if each.case.door == door]
    for name, group in groups.items():
        report.add(f"{name}prompts", len(group))
        report.add(f"{name}base", _share(group, lambda each: each.base))
        report.add(f"{name}told_directly", _share(group, lambda each: each.told))
        report.add(f"{name}followed", _share(group, lambda each: each.memory))
        report.add(f"{name}followed_where_it_can", _share(group, lambda each: each.memory, lambda each: each.told))
        report.add(f"{name}shown", _share(group, lambda each: each.shown))
    report.add("shown_beside", sum(each.beside for each in asked) / len(asked))
    shown_and_can = _share(asked, lambda each: each.memory, lambda each: each.told and each.shown)
    report.add("followed_where_shown_and_it_can", shown_and_can)
    examples = groups.get("kind.example.", [])
    for form in (*FORMS, *POSITIONS):
        report.add(f"forms.{form}.followed", _share(asked, lambda each, form=form: each.forms[form]))
        report.add(f"forms.{form}.example.followed", _share(examples, lambda each, form=form: each.forms[form]))


def _share(
    asked: Sequence[Asked], follows: Callable[[Asked], bool], among: Callable[[Asked], bool] = lambda _: True
) -> float | None:
    """Percent of those ``among`` which it ``follows``; None where there are none."""
    chosen = [follows(each) for each in asked if among(each)]
    return 100 * sum(chosen) / len(chosen) if chosen else None


if __name__ == "__main__":
    try:
        main()
    except (OSError, RuntimeError, httpx.HTTPError, argparse.ArgumentError) as error:
        sys.exit(f"following.py: {error}")
