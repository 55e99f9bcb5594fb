"""The gate's decision, check by check, over a scorer whose every figure the test sets."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import NormalDist

import pytest

from familiar.adapters.gate import AGREE, DISAGREE, Check, Gate, Report, chance_of_loss, lower_bound, t_95
from familiar.adapters.probes import Neutral, Probes, Question
from familiar.adapters.protocols import Progress, silent
from familiar.feedback.pairs import LESSON, PRACTICE, Example
from familiar.memory.types import Message

CANDIDATE, CURRENT = Path("candidate.gguf"), Path("current.gguf")


def ask(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


HELD_OUT = [Example(f"fb-{i}", ask(f"question {i}"), f"answer {i}", None, f"group-{i}") for i in range(4)]
PROBES = Probes(
    general=tuple(Question(ask(f"general {i}"), ("yes",)) for i in range(100)),
    neutral=(Neutral(ask("hello"), "Hello."), Neutral(ask("thanks"), "You are welcome.")),
    false_claims=tuple(ask(f"claim {i}") for i in range(5)),
    passages=("One plain text.", "Another."),
)


@dataclass
class ToyScorer:
    """A model whose base scores -2 per token; an adapter adds ``gains`` per held-out row, and what else is set."""

    gains: Mapping[Path, Sequence[float]] = field(
        default_factory=lambda: {CANDIDATE: [0.5, 0.6, 0.4, 0.5], CURRENT: [0.1, 0.2, 0.1, 0.0]}
    )
    kl: float = 0.1
    text_loss: float = 0.0
    known: int = 90
    forgotten: int = 0
    base_agrees: int = 1
    agrees: int = 1

    def logps(self, adapter: Path | None, messages: Sequence[Message], completion: str) -> list[float]:
        kind, number = messages[-1]["content"].split()
        if kind == "claim":
            agrees = int(number) < (self.agrees if adapter == CANDIDATE else self.base_agrees)
            return [-1.0, -1.0] if agrees == completion.endswith(AGREE) else [-2.0, -2.0]
        gain = self.gains[adapter][int(number)] if adapter else 0.0
        return [-2.0 + gain] * 3

    def token_kl(self, adapter: Path, messages: Sequence[Message], completion: str, rewritten: str) -> float:
        return self.kl if rewritten == completion else 2 * self.kl

    def text_logps(self, adapter: Path | None, text: str) -> list[float]:
        return [-3.0 - (self.text_loss if adapter else 0.0)] * len(text)

    def generate(self, adapter: Path | None, messages: Sequence[Message], max_tokens: int) -> str:
        number = int(messages[-1]["content"].split()[1])
        lowest = self.forgotten if adapter else 0
        return "Yes." if lowest <= number < self.known else "No."

    def encode(self, messages: Sequence[Message], completion: str) -> tuple[list[int], list[int]]:
        raise NotImplementedError


def judged(scorer: ToyScorer, *, current: Path | None = CURRENT, held_out: int = 4, parity: float = 0.01) -> Report:
    return Gate(scorer, current, HELD_OUT[:held_out], PROBES).judge(CANDIDATE, parity=parity)


def failed(report: Report) -> list[str]:
    assert report.passed == all(check.ok for check in report.checks)
    return [check.name for check in report.checks if not check.ok]


def check(report: Report, name: str) -> Check:
    return next(check for check in report.checks if check.name == name)


def test_a_good_adapter_passes_every_check() -> None:
    report = judged(ToyScorer())
    assert failed(report) == []
    assert {check.name for check in report.checks} == {
        *("held_out", "general_probes", "kl_to_base", "perplexity", "false_claims", "parity", "changes_output")
    }


def test_an_adapter_that_does_nothing_fails() -> None:
    nothing = ToyScorer(gains={CANDIDATE: [0.0] * 4, CURRENT: [0.0] * 4}, kl=0.0)
    assert failed(judged(nothing)) == ["held_out", "changes_output"]


def test_an_uncertain_gain_fails() -> None:
    report = judged(ToyScorer(gains={CANDIDATE: [2.0, -0.5, 1.0, -0.4]}), current=None)
    assert failed(report) == ["held_out"]
    value = check(report, "held_out").value
    assert value is not None
    assert value < 0 < sum([2.0, -0.5, 1.0, -0.4])


def test_it_must_beat_the_served_version_too() -> None:
    gains = {CANDIDATE: [0.5, 0.6, 0.4, 0.5], CURRENT: [0.6, 0.7, 0.4, 0.5]}
    assert failed(judged(ToyScorer(gains=gains))) == ["held_out"]
    assert failed(judged(ToyScorer(gains=gains), current=None)) == []


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_held_out_prompts_fail_and_say_so(rows: int) -> None:
    report = judged(ToyScorer(), held_out=rows)
    assert "held_out" in failed(report)
    assert check(report, "held_out").value is None
    assert f"2 held-out prompts or more, and there is {rows}" in check(report, "held_out").detail


def grouped(*groups: str) -> list[Example]:
    return [Example(f"fb-{i}", ask(f"question {i}"), "answer", None, group) for i, group in enumerate(groups)]


def judged_on(held_out: Sequence[Example], gains: Sequence[float], served: Sequence[float] | None = None) -> Check:
    """The check of an adapter that gains so much per token on each row over the base model."""
    scorer = ToyScorer(gains={CANDIDATE: gains, CURRENT: served or []})
    report = Gate(scorer, CURRENT if served else None, held_out, PROBES).judge(CANDIDATE, parity=0.01)
    return check(report, "held_out")


@pytest.mark.parametrize("made", [LESSON, PRACTICE])
def test_what_memories_and_habits_gain_does_not_make_up_for_corrections_that_lose(made: str) -> None:
    held_out = grouped("group-0", "group-1", *[made] * 8)
    others = [0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    lost = judged_on(held_out, [-0.4, -0.3, *others])
    assert not lost.ok
    assert lost.value == pytest.approx(-0.35)
    assert "-0.350 on the 2 of the user's own corrections, which must not lose" in lost.detail
    kept = judged_on(held_out, [-0.1, 0.1, *others])
    assert kept.ok, "they need not gain beyond chance by themselves"
    assert kept.value is not None
    assert kept.value > 0
    assert judged_on(grouped(*[made] * 8), others).ok, "without corrections the others judge alone"


def test_corrections_must_not_lose_against_the_served_version_either() -> None:
    held_out = grouped("group-0", "group-1", *[LESSON] * 8)
    lost = judged_on(held_out, [0.5, 0.4, *[0.9] * 8], [0.6, 0.5, *[0.1] * 8])
    assert not lost.ok
    assert lost.value == pytest.approx(-0.1)
    assert "over the served version" in lost.detail
    assert judged_on(held_out, [0.6, 0.5, *[0.9] * 8], [0.6, 0.5, *[0.1] * 8]).ok


def test_rows_of_one_prompt_count_once() -> None:
    gains = [0.5, 0.52, 0.48, 0.5, 0.51, -0.1]
    assert judged_on(grouped(*[f"group-{i}" for i in range(6)]), gains).ok
    once = judged_on(grouped(*["group-0"] * 5, "group-1"), gains)
    assert not once.ok
    assert once.value == pytest.approx(lower_bound([sum(gains[:5]) / 5, -0.1]))
    assert once.detail.startswith("On 2 held-out prompts: ")


def test_rows_of_one_prompt_alone_are_no_verdict() -> None:
    alone = judged_on(grouped(*["group-0"] * 4), [0.5, 0.6, 0.4, 0.5])
    assert (alone.ok, alone.value) == (False, None)
    assert "2 held-out prompts or more, and there is 1" in alone.detail
    assert judged_on(grouped(*[LESSON] * 4), [0.5, 0.6, 0.4, 0.5]).ok, "what is made has a prompt each"


@pytest.mark.parametrize(("forgotten", "ok"), [(0, True), (1, True), (4, True), (5, False), (40, False)])
def test_general_answers_must_be_kept(forgotten: int, ok: bool) -> None:
    report = judged(ToyScorer(forgotten=forgotten))
    assert check(report, "general_probes").ok is ok
    assert check(report, "general_probes").value == pytest.approx((90 - forgotten) / 90)


def test_where_the_base_knows_nothing_there_is_nothing_to_keep() -> None:
    kept = check(judged(ToyScorer(known=0)), "general_probes")
    assert kept.ok
    assert kept.detail == "Of 100 questions the base model answers 0 rightly; 0 of those are lost and 0 others won."


@pytest.mark.parametrize(
    ("lost", "won", "chance"),
    [(0, 0, 1.0), (1, 0, 0.5), (5, 0, 1 / 32), (0, 5, 1.0), (3, 3, 42 / 64), (9, 2, 67 / 2048)],
)
def test_losses_are_told_from_chance_by_what_was_won(lost: int, won: int, chance: float) -> None:
    assert chance_of_loss(lost, won) == pytest.approx(chance)


@pytest.mark.parametrize(
    ("scorer", "name"),
    [
        (ToyScorer(kl=1.01), "kl_to_base"),
        (ToyScorer(text_loss=math.log(1.051)), "perplexity"),
        (ToyScorer(agrees=5), "false_claims"),
        (ToyScorer(kl=math.nan), "kl_to_base"),
        (ToyScorer(text_loss=math.inf), "perplexity"),
    ],
)
def test_each_harm_fails_its_own_check(scorer: ToyScorer, name: str) -> None:
    assert failed(judged(scorer)) == [name]


def test_agreeing_with_fewer_false_claims_is_well() -> None:
    improved = check(judged(ToyScorer(base_agrees=3, agrees=0)), "false_claims")
    assert improved.ok
    assert improved.value is not None
    assert improved.value < 0


def test_a_wanted_greeting_is_no_change_of_what_the_model_says() -> None:
    asked: list[str] = []

    class Listening(ToyScorer):
        def logps(self, adapter: Path | None, messages: Sequence[Message], completion: str) -> list[float]:
            if messages[-1]["content"].startswith("claim"):
                asked.append(f"{'new' if adapter else 'base'}: {completion}")
            return super().logps(adapter, messages, completion)

    def greet(text: str) -> str:
        return f"Ahoy! {text}"

    report = Gate(Listening(), CURRENT, HELD_OUT[:4], PROBES, manner=greet).judge(CANDIDATE, parity=0.01)
    assert set(asked) == {f"base: {AGREE}", f"base: {DISAGREE}", f"new: Ahoy! {AGREE}", f"new: Ahoy! {DISAGREE}"}
    assert check(report, "kl_to_base").value == pytest.approx(0.2)  # asked of the greeted reply


def test_one_claim_that_tips_over_is_chance() -> None:
    tipped = check(judged(ToyScorer(agrees=2)), "false_claims")
    assert tipped.ok
    assert "Agrees with 2 of 5 false claims, the base model with 1" in tipped.detail


@pytest.mark.parametrize(("gap", "ok"), [(0.05, True), (0.051, False), (math.nan, False), (math.inf, False)])
def test_torch_and_llama_cpp_must_agree(gap: float, ok: bool) -> None:
    assert check(judged(ToyScorer(), parity=gap), "parity").ok is ok


def test_scores_that_are_not_numbers_fail_and_still_make_a_report() -> None:
    report = judged(ToyScorer(gains={CANDIDATE: [math.nan] * 4, CURRENT: [0.0] * 4}))
    assert set(failed(report)) == {"held_out", "changes_output"}
    text = json.dumps(report.to_dict(), allow_nan=False)
    assert Report.from_dict(json.loads(text)) == report


def test_less_of_an_adapter_is_worth_a_trial_where_it_only_does_harm() -> None:
    assert judged(ToyScorer(kl=1.01, agrees=5)).is_too_strong
    assert not judged(ToyScorer()).is_too_strong, "nothing failed"
    useless = ToyScorer(gains={CANDIDATE: [-0.1] * 4, CURRENT: [0.0] * 4}, kl=1.01)
    assert not judged(useless).is_too_strong, "less of it would not help the user either"
    assert not judged(ToyScorer(kl=1.01), parity=1.0).is_too_strong, "what is served is not what was trained"


def test_the_base_and_the_served_model_are_asked_once_for_all_candidates() -> None:
    asked: list[Path | None] = []

    class Listening(ToyScorer):
        def logps(self, adapter: Path | None, messages: Sequence[Message], completion: str) -> list[float]:
            asked.append(adapter)
            return super().logps(adapter, messages, completion)

        def text_logps(self, adapter: Path | None, text: str) -> list[float]:
            asked.append(adapter)
            return super().text_logps(adapter, text)

        def generate(self, adapter: Path | None, messages: Sequence[Message], max_tokens: int) -> str:
            asked.append(adapter)
            return super().generate(adapter, messages, max_tokens)

    gate = Gate(Listening(), CURRENT, HELD_OUT, PROBES)
    first = gate.judge(CANDIDATE, parity=0.01)
    assert {None, CURRENT, CANDIDATE} == set(asked)
    asked.clear()
    second = gate.judge(CANDIDATE, parity=0.01, strength=0.5)
    assert set(asked) == {CANDIDATE}
    assert second == replace(first, strength=0.5)
    assert Report.from_dict(second.to_dict()) == second


def test_it_reports_its_progress() -> None:
    seen: list[Progress] = []
    Gate(ToyScorer(), None, HELD_OUT, PROBES).judge(CANDIDATE, parity=0.0, progress=seen.append)
    assert [progress.done for progress in seen] == list(range(1, 8))
    silent(seen[0])


def test_the_bound_is_the_t_interval() -> None:
    values = [0.1, 0.4, 0.2, 0.3]
    spread = math.sqrt(sum((value - 0.25) ** 2 for value in values) / 3)
    assert lower_bound(values) == pytest.approx(0.25 - 2.3534 * spread / 2)


@pytest.mark.parametrize("freedom", [1, 2, 5, 17, 30, 31, 60, 500])
def test_the_quantile_leaves_five_percent_above_it(freedom: int) -> None:
    height = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    steps, top = 20_000, t_95(freedom)
    inside = (
        sum((1 + (top * (i + 0.5) / steps) ** 2 / freedom) ** (-(freedom + 1) / 2) for i in range(steps)) * top / steps
    )
    assert 0.5 - height * inside == pytest.approx(0.05, abs=1e-4)
    assert top > NormalDist().inv_cdf(0.95)
