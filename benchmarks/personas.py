"""Measure the learner on other people's data: users whose wishes nobody wrote for Familiar.

``python benchmarks/personas.py --data FOLDER`` plays users of two public sets (``personas_data.py``; FOLDER holds
``pahf_embodied/`` and ``memprompt_linguistic_300.jsonl``) over the built-in model. The model is too small to write such
answers, so it chooses: of the answers that there are, the one that it finds likeliest, by its tokens' mean
log-probability. The user corrects a wrong one, in so many words and with no rule. After every 15 interactions the
learner runs and the gate decides, as in the service; then the same user's other questions are asked of the base model,
of memory alone, of the weights alone, and of both.

An *everyday* user asks 30 things, then 30 after their taste changed; what is measured is the same situations in other
words with other things, as the taste is by then. A *words* user has expressions of their own for five kinds of
question. Chance is 1 of 2 to 5 in the first, 1 of 5 in the second.

Each user is a row of a JSON-lines file: a run that is cut off goes on there.
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from common import BUILD, BUILTIN, Report, arguments, progress
from personal_arms import ARMS, Arm, Product, asked, opened, product, share
from personal_figures import append, interval, read
from personas_data import Choice, Everyday, everyday, word_tasks
from recall import CachedEmbed

from familiar.adapters.folders import file_sha256
from familiar.adapters.recipe import Recipe
from familiar.daemon import sentence_model, settings
from familiar.feedback import signals
from familiar.feedback.signals import Origin

EVERY = 15
"""Interactions between two runs of the learner."""
WORDS_TAUGHT, WORDS_HELD_OUT = 60, 75

Measured = Mapping[str, Any]


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--users", type=int, help="how many of each kind; 10, or 1 with --quick")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, default=BUILD / "benchmarks" / "personas.jsonl", metavar="FILE")
    parser.add_argument("--report", action="store_true", help="only sum up the results")
    given = parser.parse_args()
    count = given.users or (1 if given.quick else 10)
    try:
        people = everyday(given.data)[:count]
        words = [word_tasks(given.data, seed, WORDS_TAUGHT, WORDS_HELD_OUT) for seed in range(count)]
    except (OSError, ValueError, KeyError) as error:
        parser.error(f"{given.data} does not hold the two sets ({error!r}): see --help.")
    users: dict[str, Callable[[Product], Measured]] = {}
    for number, (person, (taught, held_out)) in enumerate(zip(people, words, strict=True)):
        users[f"everyday {person.user}"] = partial(everyday_user, person=person)
        users[f"words {number}"] = partial(words_user, taught=taught, held_out=held_out, seed=number)
    settings_used = {"recipe": Recipe.from_dict({}).to_dict(), "model": file_sha256(BUILTIN)}
    known = {row["user"]: row for row in read(given.results) if row["settings"] == settings_used}
    if not given.report:
        left = {name: use for name, use in users.items() if name not in known}
        known |= measure(given, left, settings_used)
    report = Report()
    tell(report, [known[name] for name in users if name in known])
    report.finish(given.json)


def measure(
    given: argparse.Namespace, users: Mapping[str, Callable[[Product], Measured]], settings_used: Mapping[str, object]
) -> dict[str, Measured]:
    """Play these users, and keep each as a row."""
    path = sentence_model.resolve(settings.load({}, env={}), progress)
    embed = CachedEmbed(path, given.threads) if path else None
    found: dict[str, Measured] = {}
    with (
        tempfile.TemporaryDirectory(prefix="familiar-personas-") as work,
        opened(BUILTIN, given.threads) as models,
    ):
        for number, (name, use) in enumerate(users.items()):
            progress(f"{number + 1}/{len(users)} {name}")
            with (
                tempfile.TemporaryDirectory(dir=work) as folder,
                product(models, Path(folder), given.threads, embed) as fresh,
            ):
                found[name] = {"user": name, "settings": settings_used, **use(fresh)}
            append(given.results, found[name])
    return found


def everyday_user(fresh: Product, person: Everyday) -> Measured:
    """Somebody whose taste changes after the first half."""
    before, after = person.held_out, person.later_held_out
    rounds = [measured(fresh, 0, before, None)]
    for taught, held_out in ((person.taught, before), (person.later_taught, after)):
        if held_out is after:
            rounds.append({**measured(fresh, rounds[-1]["after"], after, None), "changed": True})
        start = rounds[-1]["after"]
        for at in range(0, len(taught), EVERY):
            part = taught[at : at + EVERY]
            rounds.append(taught_on(fresh, part, start + at + len(part), held_out))
    return {"kind": "everyday", "rounds": rounds}


def words_user(fresh: Product, taught: Sequence[Choice], held_out: Sequence[Choice], seed: int) -> Measured:
    """Somebody with expressions of their own."""
    rounds = [measured(fresh, 0, held_out, None)]
    for at in range(0, len(taught), EVERY):
        rounds.append(taught_on(fresh, taught[at : at + EVERY], at + EVERY, held_out))
    return {"kind": "words", "seed": seed, "rounds": rounds}


def taught_on(fresh: Product, part: Sequence[Choice], after: int, held_out: Sequence[Choice]) -> dict[str, Any]:
    """Interact, learn, and measure."""
    for choice in part:
        interact(fresh, choice)
    planned = fresh.plan(Recipe.from_dict({}).to_dict())
    learned = fresh.learn(planned, serve=True) if planned else None
    return measured(fresh, after, held_out, learned.passed if learned else None)


def interact(fresh: Product, choice: Choice) -> None:
    """One interaction: the answer that is chosen now, and its correction where it is not the right one."""
    (messages,) = asked([choice.prompt])
    recalled = fresh.recall(messages, "both")
    chosen = fresh.chosen("both", [(messages, choice.beginnings)])[0]
    exchange = fresh.log(messages, recalled, choice.answers[chosen], "stop", served=fresh.adapter is not None)
    if chosen != choice.right:
        origin = Origin(f"fb-{fresh.exchanges}", exchange.created_at)
        signal = signals.correction(origin, exchange, choice.answers[choice.right], None)
        fresh.store.add_feedback(signal.feedback, signal.memories)


def measured(fresh: Product, after: int, choices: Sequence[Choice], passed: bool | None) -> dict[str, Any]:
    """The share of right choices by each arm."""
    questions = [(asked([each.prompt])[0], each.beginnings) for each in choices]

    def right(arm: Arm) -> float:
        found = fresh.chosen(arm, questions)
        return share([number == each.right for number, each in zip(found, choices, strict=True)])

    found = {arm: right(arm) for arm in ARMS}
    progress(f"  after {after}: { {arm: round(value, 2) for arm, value in found.items()} } {passed}")
    return {"after": after, "changed": False, "right": found, "passed": passed}


def tell(report: Report, rows: Sequence[Measured]) -> None:
    """Add the curve of each kind of user, with intervals over users."""
    for kind in ("everyday", "words"):
        those = [row for row in rows if row["kind"] == kind]
        report.add(f"{kind}.users", len(those))
        for place in range(max((len(row["rounds"]) for row in those), default=0)):
            rounds = [row["rounds"][place] for row in those if len(row["rounds"]) > place]
            first = rounds[0]
            name = f"{kind}.after_{first['after']}{'.changed' if first['changed'] else ''}"
            for arm in ARMS:
                values = [each["right"][arm] for each in rounds]
                low, high = interval([values])
                report.add(f"{name}.{arm}", fmean(values))
                report.add(f"{name}.{arm}.95", f"{low:.3f}-{high:.3f}")
            passed = [each["passed"] for each in rounds if each["passed"] is not None]
            if passed:
                report.add(f"{name}.gate_passed", fmean(passed))


if __name__ == "__main__":
    main()
