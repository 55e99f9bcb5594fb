"""Measure whether the product becomes somebody's own: simulated people over the built-in model.

``python benchmarks/personal.py`` gives each wish of ``personal_users.py`` a person and a store of their own, for each
seed. In each of 36 interactions the person asks something, sees the reply as it would be served then (memory, and the
adapter that was learnt by then), corrects it where it is not as wanted, every third time with the wish in words, and
else sometimes rates it good. After 6, 12, 24 and 36 of them the learner runs, and the gate decides. Some want something
else from the middle on. Held-out prompts are then asked of the base model, of memory alone, of the weights alone, and
of both.

Three more experiments: ``chain`` teaches one person several wishes one after another; ``policy`` compares imitation
alone with imitation and GRPO, where a ready grader checks the wish; ``distillation`` compares SFT on corrections with
self-distillation of the rule, by what is kept where both follow alike, for wishes that the base model follows when it
is told them. These two learn from replies of the base model.

Every experiment with one person is a row of a JSON-lines file: a run that is cut off goes on there, and ``--report``
sums up what is there for the same settings. What is left out: HTTP and the service's process, other models, and people
who change their mind within a reply.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from common import BUILD, BUILTIN, Report, arguments, progress
from personal_arms import ARMS, Person, Product, opened, product
from personal_figures import Row, append, key, read, tell
from personal_users import CHAIN, TOLD, WISHES, Wish, prompts
from recall import CachedEmbed

from familiar.adapters.folders import file_sha256
from familiar.adapters.probes import Question, load_probes
from familiar.adapters.recipe import Distillation, Policy, Recipe
from familiar.daemon import sentence_model, settings
from familiar.daemon.learner_steps import Models
from familiar.memory.errors import FamiliarError

EXPERIMENTS = ("curve", "chain", "policy", "distillation")


@dataclass(frozen=True)
class Scale:
    """How much is measured: all that a row depends on beside its experiment, seed and preference.

    ``rounds`` are the interactions after which the learner runs and all is measured, ``taught`` those of each wish of
    the chain and of the comparisons. ``alone`` is self-distillation with no imitation before it, which is more of it.
    """

    rounds: tuple[int, ...] = (0, 6, 12, 24, 36)
    taught: int = 12
    held_out: int = 24
    questions: int = 120
    chain: tuple[str, ...] = CHAIN
    recipe: Recipe = field(default_factory=Recipe)
    alone: Distillation = field(default_factory=lambda: Distillation(rounds=16, learning_rate=1e-3))
    by_meaning: bool = True

    def to_dict(self) -> dict[str, Any]:
        """As a row keeps it."""
        return {**asdict(self), "rounds": list(self.rounds), "chain": list(self.chain), "recipe": self.recipe.to_dict()}


QUICK = Scale(
    rounds=(0, 6),
    taught=6,
    held_out=8,
    questions=20,
    chain=CHAIN[:2],
    recipe=Recipe(
        epochs=2, distillation=Distillation(rounds=1, prompts=4), policy=Policy(rounds=1, prompts=4, group=4)
    ),
    alone=Distillation(rounds=1, prompts=4),
)


@dataclass(frozen=True)
class Bench:
    """What every experiment uses; ``fresh`` gives a product on an empty store."""

    scale: Scale
    models: Models
    threads: int
    embed: CachedEmbed | None
    work: Path

    def run(self, use: Callable[[Product], dict[str, Any]]) -> dict[str, Any]:
        """Use a product on an empty store."""
        with (
            tempfile.TemporaryDirectory(dir=self.work) as folder,
            product(self.models, Path(folder), self.threads, self.embed) as fresh,
        ):
            return use(fresh)

    def recipe(self, seed: int, **changes: Any) -> dict[str, object]:
        """The recipe for a seed, with changes."""
        return replace(self.scale.recipe, seed=seed, **changes).to_dict()

    @property
    def questions(self) -> Sequence[Question]:
        """Some of the gate's general questions, evenly drawn."""
        every = load_probes().general
        return every[:: max(1, len(every) // self.scale.questions)]


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, help="how many; 5, or 1 with --quick")
    parser.add_argument(
        "--preferences", type=_names, metavar="NAME,…", help=f"of curve and policy, some of {', '.join(WISHES)}"
    )
    parser.add_argument("--rounds", type=_numbers, metavar="0,6,…", help="interactions after which all is measured")
    parser.add_argument("--experiments", type=_experiments, default=EXPERIMENTS, metavar="NAME,…")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, default=BUILD / "benchmarks" / "personal.jsonl", metavar="FILE")
    parser.add_argument("--report", action="store_true", help="only sum up the results")
    given = parser.parse_args()
    path = sentence_model.resolve(settings.load({}, env={}), progress)
    scale = replace(QUICK if given.quick else Scale(), by_meaning=path is not None)
    scale = replace(scale, rounds=given.rounds or scale.rounds)
    names = given.preferences or (("tag",) if given.quick else tuple(WISHES))
    seeds = given.seeds or (1 if given.quick else 5)
    report = Report()
    if not given.report:
        measure(given, scale, names, seeds, path)
    wanted = {key(_row(*each, scale)) for each in todo(given.experiments, seeds, names)}
    tell(report, [row for row in read(given.results) if key(row) in wanted])
    report.finish(given.json)


def todo(experiments: Sequence[str], seeds: int, names: Sequence[str]) -> list[tuple[str, int, str]]:
    """The experiments, whole seeds one after another."""
    found = []
    for seed in range(seeds):
        for name in names:
            graded = WISHES[name].grader is not None
            found += [
                (experiment, seed, name)
                for experiment in experiments
                if experiment == "curve" or (experiment == "policy" and graded)
            ]
        found += [("chain", seed, "chain")] * ("chain" in experiments)
        found += [("distillation", seed, name) for name in TOLD if "distillation" in experiments]
    return found


def measure(given: argparse.Namespace, scale: Scale, names: Sequence[str], seeds: int, sentences: Path | None) -> None:
    """Do what is not among the results yet."""
    done = {key(row) for row in read(given.results)}
    left = [each for each in todo(given.experiments, seeds, names) if key(_row(*each, scale)) not in done]
    embed = CachedEmbed(sentences, given.threads) if sentences else None
    with (
        tempfile.TemporaryDirectory(prefix="familiar-personal-") as work,
        opened(BUILTIN, given.threads) as models,
    ):
        bench = Bench(scale, models, given.threads, embed, Path(work))
        for number, (experiment, seed, name) in enumerate(left):
            progress(f"{number + 1}/{len(left)} {experiment}, seed {seed}, {name}")
            found = _MEASURED[experiment](bench, seed, name)
            append(given.results, {**_row(experiment, seed, name, scale), **found})


def curve(bench: Bench, seed: int, name: str) -> dict[str, Any]:
    """How well a wish is followed as interactions go on, by each arm."""
    wish, scale = WISHES[name], bench.scale
    last = scale.rounds[-1]
    taught, held_out = prompts(seed, last, scale.held_out)

    def use(fresh: Product) -> dict[str, Any]:
        person = Person([wish], random.Random(f"{seed}/{name}"))
        rounds = []
        for number in range(last + 1):
            if number in scale.rounds:
                planned = fresh.plan(bench.recipe(seed)) if number else None
                learned = fresh.learn(planned, serve=True) if planned else None
                adherence = {arm: fresh.adherence(arm, held_out, person.wishes[-1]) for arm in ARMS}
                progress(f"  after {number}: {adherence} {'' if learned is None or learned.passed else learned.failed}")
                rounds.append(
                    {
                        "after": number,
                        "adherence": adherence,
                        "corrections": person.corrections,
                        "learned": learned
                        and {"passed": learned.passed, "failed": learned.failed, "seconds": learned.seconds},
                    }
                )
            if wish.later is not None and number == last // 2:
                person.wants([wish.later])
            if number < last:
                fresh.interact(person, taught[number])
        kept = {arm: fresh.kept(arm, bench.questions) for arm in ARMS}
        return {"drifts": wish.later is not None, "rounds": rounds, "general_kept": kept}

    return bench.run(use)


def chain(bench: Bench, seed: int, _name: str) -> dict[str, Any]:
    """How well the first wishes are followed as one person has more and more."""
    names, scale = bench.scale.chain, bench.scale
    names = (*names[seed % len(names) :], *names[: seed % len(names)])
    taught, held_out = prompts(seed, scale.taught * len(names), scale.held_out)

    def use(fresh: Product) -> dict[str, Any]:
        person = Person([], random.Random(f"{seed}/chain"))
        phases = []
        for number, name in enumerate(names):
            person.wants([*person.wishes, WISHES[name]])
            for prompt in taught[number * scale.taught : (number + 1) * scale.taught]:
                fresh.interact(person, prompt)
            planned = fresh.plan(bench.recipe(seed))
            learned = fresh.learn(planned, serve=True) if planned else None
            adherence = {arm: [fresh.adherence(arm, held_out, wish) for wish in person.wishes] for arm in ARMS}
            progress(f"  with {name}: {adherence}")
            phases.append({"taught": name, "adherence": adherence, "passed": learned and learned.passed})
        return {"phases": phases}

    return bench.run(use)


def policy(bench: Bench, seed: int, name: str) -> dict[str, Any]:
    """Imitation with DPO alone, and GRPO after it."""
    wish = WISHES[name]
    none, stage = replace(bench.scale.recipe.distillation, rounds=0), bench.scale.recipe.policy
    arms = {
        "dpo": bench.recipe(seed, distillation=none, policy=replace(stage, rounds=0)),
        "grpo": bench.recipe(seed, distillation=none, policy=stage),
    }

    def use(fresh: Product) -> dict[str, Any]:
        held_out = _teach(bench, fresh, seed, wish)
        fresh.attach(wish)
        found = {}
        for arm, recipe in arms.items():
            learned = fresh.learn(_planned(fresh, recipe), serve=False)
            found[arm] = {**_figures(bench, fresh, learned.candidate, held_out, wish), "passed": learned.passed}
            progress(f"  {arm}: {found[arm]}")
        return found

    return bench.run(use)


def distillation(bench: Bench, seed: int, name: str) -> dict[str, Any]:
    """SFT on corrections, and self-distillation of the rule without them; ``matched`` is where both follow alike."""
    wish = TOLD[name]
    none = replace(bench.scale.recipe.policy, rounds=0)
    without = replace(bench.scale.recipe.distillation, rounds=0)

    def use(fresh: Product) -> dict[str, Any]:
        held_out = _teach(bench, fresh, seed, wish)
        sft = _planned(fresh, bench.recipe(seed, dpo_weight=0.0, kto_weight=0.0, distillation=without, policy=none))
        rule = _planned(fresh, bench.recipe(seed, policy=none, distillation=bench.scale.alone))
        plans = {"sft": sft, "distilled": replace(rule, dataset=replace(rule.dataset, train=()), ratings=())}
        found: dict[str, Any] = {}
        followed: dict[str, dict[Path, float]] = {}
        for arm, planned in plans.items():
            learned = fresh.learn(planned, serve=False)
            found[arm] = {**_figures(bench, fresh, learned.candidate, held_out, wish), "passed": learned.passed}
            followed[arm] = {each: _adherence(fresh, each, held_out, wish) for each in learned.rounds}
            progress(f"  {arm}: {found[arm]}")
        level = min(max(rounds.values()) for rounds in followed.values())
        first = {arm: next(each for each, at in rounds.items() if at >= level) for arm, rounds in followed.items()}
        found["matched"] = {arm: _figures(bench, fresh, each, held_out, wish) for arm, each in first.items()}
        found["matched"]["level"] = level
        return found

    return bench.run(use)


_MEASURED: Mapping[str, Callable[[Bench, int, str], dict[str, Any]]] = {
    "curve": curve,
    "chain": chain,
    "policy": policy,
    "distillation": distillation,
}


def _teach(bench: Bench, fresh: Product, seed: int, wish: Wish) -> list[str]:
    """Have a person correct replies of the base model; return held-out prompts."""
    taught, held_out = prompts(seed, bench.scale.taught, bench.scale.held_out)
    person = Person([wish], random.Random(f"{seed}/{wish.name}"))
    for prompt in taught:
        fresh.interact(person, prompt, "base")
    return held_out


def _planned(fresh: Product, recipe: Mapping[str, Any]) -> Any:
    planned = fresh.plan(recipe)
    if planned is None:
        raise RuntimeError("too few replies were corrected to learn from: teach more")
    return planned


def _figures(
    bench: Bench, fresh: Product, adapter: Path | None, held_out: Sequence[str], wish: Wish
) -> dict[str, float]:
    """What an adapter that is not served does: how it follows, and what it keeps."""
    if adapter is None:
        raise RuntimeError("the run left no candidate")
    adherence = _adherence(fresh, adapter, held_out, wish)
    return {
        "adherence": adherence,
        "general_kept": fresh.kept("adapter", bench.questions),
        "kl": fresh.kl(adapter),
    }


def _adherence(fresh: Product, adapter: Path, held_out: Sequence[str], wish: Wish) -> float:
    fresh.adapter = adapter
    return fresh.adherence("adapter", held_out, wish)


def _row(experiment: str, seed: int, name: str, scale: Scale) -> Row:
    settings = {**scale.to_dict(), "model": file_sha256(BUILTIN)}
    return {"experiment": experiment, "seed": seed, "preference": name, "settings": settings}


def _names(text: str) -> tuple[str, ...]:
    return _some(text, WISHES)


def _experiments(text: str) -> tuple[str, ...]:
    return _some(text, EXPERIMENTS)


def _some(text: str, known: Sequence[str] | Mapping[str, Wish]) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"there is no {name}: there are {', '.join(known)}")
    return names


def _numbers(text: str) -> tuple[int, ...]:
    numbers = tuple(sorted({int(each) for each in text.split(",")}))
    if numbers[0] < 0:
        raise argparse.ArgumentTypeError("rounds are counted from 0")
    return numbers


if __name__ == "__main__":
    try:
        main()
    except (OSError, RuntimeError, FamiliarError) as error:
        sys.exit(f"personal.py: {error}")
