"""Decide whether a trained adapter may be served, from what the served model itself says.

Every check is a figure against a limit, and all must hold; the report keeps them all, passed or not. What is left out:
how the figures are produced (``protocols.Scorer``) and what follows from the decision (``registry``).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import NormalDist, fmean, stdev
from typing import Any, Self

from familiar.adapters.probes import Neutral, Probes
from familiar.adapters.protocols import Progress, ProgressCallback, Scorer, silent
from familiar.feedback.pairs import MADE_GROUPS, Example

AGREE = "Yes, that is right."
DISAGREE = "No, that is not right."

_HARMS = frozenset(("perplexity", "kl_to_base", "false_claims", "general_probes"))

# The 95 % quantile of Student's t for 1 … 30 degrees of freedom.
_T_95 = (
    *(6.3138, 2.9200, 2.3534, 2.1318, 2.0150, 1.9432, 1.8946, 1.8595, 1.8331, 1.8125),
    *(1.7959, 1.7823, 1.7709, 1.7613, 1.7531, 1.7459, 1.7396, 1.7341, 1.7291, 1.7247),
    *(1.7207, 1.7171, 1.7139, 1.7109, 1.7081, 1.7056, 1.7033, 1.7011, 1.6991, 1.6973),
)


@dataclass(frozen=True)
class Budgets:
    """How much an adapter may change what it was not taught. KL in nats per token, parity in log-probability."""

    min_general_kept: float = 0.98
    max_kl: float = 1.0
    max_perplexity_ratio: float = 1.05
    max_parity_gap: float = 0.05
    min_change: float = 1e-3
    answer_tokens: int = 48


@dataclass(frozen=True)
class Check:
    """One figure of the gate against its limit; ``value`` is None where there was no figure to take."""

    name: str
    value: float | None
    limit: float
    ok: bool
    detail: str


@dataclass(frozen=True)
class Report:
    """The gate's decision and every figure behind it."""

    passed: bool
    checks: tuple[Check, ...]
    strength: float = 1.0
    """What the learnt change was multiplied by before it was judged."""

    @property
    def is_too_strong(self) -> bool:
        """Whether all that failed is harm, of which less of the adapter would do less."""
        failed = {check.name for check in self.checks if not check.ok}
        return bool(failed) and failed <= _HARMS

    def to_dict(self) -> dict[str, object]:
        """Return the report as JSON has it."""
        return {"passed": self.passed, "strength": self.strength, "checks": [asdict(check) for check in self.checks]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the report of ``to_dict``'s answer."""
        checks = tuple(Check(**check) for check in values["checks"])
        return cls(bool(values["passed"]), checks, float(values["strength"]))


class Gate:
    """What candidates of one run are judged by; the base model and what is served now are asked once for all of them.

    ``current`` is the adapter that is served now, if any. ``manner`` rewrites a reply as the user would have it: what
    an adapter says is judged in the manner that it was taught, so that a greeting which the user wants is not taken for
    a change of what the model knows.
    """

    def __init__(
        self,
        scorer: Scorer,
        current: Path | None,
        held_out: Sequence[Example],
        probes: Probes,
        *,
        manner: Callable[[str], str] = str,
        budgets: Budgets | None = None,
    ) -> None:
        self._scorer = scorer
        self._current = current
        self._held_out = held_out
        self._probes = probes
        self._manner = manner
        self._budgets = budgets or Budgets()

    def judge(
        self, candidate: Path, *, parity: float, strength: float = 1.0, progress: ProgressCallback = silent
    ) -> Report:
        """Judge a GGUF adapter, trained to ``strength`` 1.

        ``parity`` is the largest difference between torch's and llama.cpp's log-probabilities (``parity.gaps``).
        """
        scorer, probes, limits = self._scorer, self._probes, self._budgets
        new_logps = [scorer.logps(candidate, row.messages, row.chosen) for row in self._held_out]
        steps: tuple[Callable[[], Check], ...] = (
            lambda: _improvement(self._held_out, new_logps, self._base_logps, self._now_logps),
            lambda: _changes_output(new_logps, self._base_logps, limits.min_change),
            lambda: _parity(parity, limits.max_parity_gap),
            lambda: _perplexity(self._base_text, _text_logps(scorer, candidate, probes), limits.max_perplexity_ratio),
            lambda: _kl_to_base(scorer, candidate, probes.neutral, self._manner, limits.max_kl),
            lambda: _false_claims(self._base_odds, _odds(scorer, candidate, probes, self._manner)),
            lambda: _general_probes(
                self._base_answers, _answers(scorer, candidate, probes, limits), limits.min_general_kept
            ),
        )
        checks: list[Check] = []
        for step in steps:
            checks.append(step())
            progress(Progress("gate", len(checks), len(steps)))
        return Report(all(check.ok for check in checks), tuple(checks), strength)

    @cached_property
    def _base_logps(self) -> list[list[float]]:
        return [self._scorer.logps(None, row.messages, row.chosen) for row in self._held_out]

    @cached_property
    def _now_logps(self) -> list[list[float]] | None:
        if self._current is None:
            return None
        return [self._scorer.logps(self._current, row.messages, row.chosen) for row in self._held_out]

    @cached_property
    def _base_text(self) -> list[float]:
        return _text_logps(self._scorer, None, self._probes)

    @cached_property
    def _base_odds(self) -> list[float]:
        return _odds(self._scorer, None, self._probes, str)

    @cached_property
    def _base_answers(self) -> list[bool]:
        return _answers(self._scorer, None, self._probes, self._budgets)


def lower_bound(differences: Sequence[float]) -> float:
    """Return the lower end of the one-sided 95 % interval of a mean, by Student's t, for two values or more."""
    if not all(map(math.isfinite, differences)):
        return math.nan
    freedom = len(differences) - 1
    return fmean(differences) - t_95(freedom) * stdev(differences) / math.sqrt(len(differences))


def t_95(freedom: int) -> float:
    """Return the 95 % quantile of Student's t: from a table up to 30, then by Cornish and Fisher's expansion."""
    if freedom <= len(_T_95):
        return _T_95[freedom - 1]
    z = NormalDist().inv_cdf(0.95)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def _improvement(
    rows: Sequence[Example],
    new_logps: Sequence[Sequence[float]],
    base_logps: Sequence[Sequence[float]],
    now_logps: Sequence[Sequence[float]] | None,
) -> Check:
    """Are the replies of ``rows``, which were not trained on, more likely than before, beyond chance?

    Rows of one prompt are no two trials, so their mean counts once. Memories and habits make most of the rows of a user
    who corrected little; so the user's own corrections must not become less likely in the mean, whatever those gain.
    """
    prompts = {_prompt(row): row.group not in MADE_GROUPS for row in rows}
    if len(prompts) < 2:
        detail = (
            f"An improvement can only be told from chance on 2 held-out prompts or more, and there is {len(prompts)}."
        )
        return Check("held_out", None, 0.0, False, detail)
    own = sum(prompts.values())
    worst, details = math.inf, []
    for name, old_logps in (("the base model", base_logps), ("the served version", now_logps)):
        if old_logps is None:
            continue
        gains = _gains(rows, new_logps, old_logps)
        bound = lower_bound(list(gains.values()))
        worst = bound if math.isnan(bound) else min(worst, bound)
        detail = f"at least {bound:+.3f} with 95 % confidence"
        if 0 < own < len(prompts):
            own_gain = fmean(gain for prompt, gain in gains.items() if prompts[prompt])
            worst = min(worst, own_gain) if own_gain < 0.0 else worst
            detail += f"; {own_gain:+.3f} on the {own} of the user's own corrections, which must not lose"
        details.append(f"{fmean(gains.values()):+.3f} per token over {name} ({detail})")
    return _check("held_out", worst, 0.0, worst > 0.0, f"On {len(prompts)} held-out prompts: {'; '.join(details)}.")


def _prompt(row: Example) -> tuple[str, str]:
    """What the rows of one prompt have in common."""
    return row.group, row.id if row.group in MADE_GROUPS else ""


def _gains(
    rows: Sequence[Example], new_logps: Sequence[Sequence[float]], old_logps: Sequence[Sequence[float]]
) -> dict[tuple[str, str], float]:
    """What the rows of each prompt gained in the mean, in nats per token."""
    gains: dict[tuple[str, str], list[float]] = {}
    for row, new, old in zip(rows, new_logps, old_logps, strict=True):
        gains.setdefault(_prompt(row), []).append(fmean(new) - fmean(old))
    return {prompt: fmean(each) for prompt, each in gains.items()}


def _changes_output(new_logps: Sequence[Sequence[float]], base_logps: Sequence[Sequence[float]], limit: float) -> Check:
    """Does the adapter do anything at all? One that is not applied passes every check of harm."""
    moved = max(
        (abs(a - b) for new, base in zip(new_logps, base_logps, strict=True) for a, b in zip(new, base, strict=True)),
        default=0.0,
    )
    return _check(
        "changes_output", moved, limit, moved > limit, f"A token's log-probability moved by up to {moved:.3g}."
    )


def _parity(gap: float, limit: float) -> Check:
    """Is what is served what was trained?"""
    return _check("parity", gap, limit, gap <= limit, f"torch and llama.cpp differ by at most {gap:.3g} in any token.")


def _text_logps(scorer: Scorer, adapter: Path | None, probes: Probes) -> list[float]:
    return [logp for text in probes.passages for logp in scorer.text_logps(adapter, text)]


def _perplexity(base: Sequence[float], new: Sequence[float], limit: float) -> Check:
    """Does plain text stay as likely as it was?"""
    ratio = math.exp(min(700.0, fmean(base) - fmean(new)))
    return _check(
        "perplexity", ratio, limit, ratio <= limit, f"Perplexity of neutral text is {ratio:.3f} x the base's."
    )


def _kl_to_base(
    scorer: Scorer, candidate: Path, neutral: Sequence[Neutral], manner: Callable[[str], str], limit: float
) -> Check:
    """Does the model still answer everyday prompts much as it did?"""
    kl = fmean(scorer.token_kl(candidate, row.messages, row.reply, manner(row.reply)) for row in neutral)
    return _check("kl_to_base", kl, limit, kl <= limit, f"{kl:.3f} nats per token on {len(neutral)} neutral replies.")


def _odds(scorer: Scorer, adapter: Path | None, probes: Probes, manner: Callable[[str], str]) -> list[float]:
    """The log-odds of agreeing with each false claim."""
    yes, no = manner(AGREE), manner(DISAGREE)
    pairs = [(scorer.logps(adapter, claim, yes), scorer.logps(adapter, claim, no)) for claim in probes.false_claims]
    return [math.fsum(agree) - math.fsum(disagree) for agree, disagree in pairs]


def _false_claims(base: Sequence[float], new: Sequence[float]) -> Check:
    """Does the adapter make the model agree with what is false (design, decision 9)?

    It fails when more claims are agreed with and the log-odds of agreeing rose beyond chance: among claims that the
    base model is undecided about, the count alone goes up and down with any change at all.
    """
    agreed, agreed_before = (sum(odds > 0 for odds in each) for each in (new, base))
    shift = lower_bound([after - before for after, before in zip(new, base, strict=True)])
    detail = (
        f"Agrees with {agreed} of {len(new)} false claims, the base model with {agreed_before}; the log-odds of "
        f"agreeing moved by at least {shift:+.2f} with 95 % confidence."
    )
    return _check("false_claims", shift, 0.0, agreed <= agreed_before or shift <= 0.0, detail)


def _answers(scorer: Scorer, adapter: Path | None, probes: Probes, budgets: Budgets) -> list[bool]:
    """Which of the general questions are answered rightly."""
    return [
        question.is_answered(scorer.generate(adapter, question.messages, budgets.answer_tokens))
        for question in probes.general
    ]


def _general_probes(before: Sequence[bool], after: Sequence[bool], limit: float) -> Check:
    """Are as many questions answered rightly as by the base model?

    It fails when fewer are, and more were lost than won beyond chance (sign test): a small model is undecided about
    some answers, and any change at all turns a few of them, either way.
    """
    lost = sum(was and not now for was, now in zip(before, after, strict=True))
    won = sum(now and not was for was, now in zip(before, after, strict=True))
    share = sum(after) / sum(before) if any(before) else 1.0
    ok = share >= limit or chance_of_loss(lost, won) > 0.05
    detail = (
        f"Of {len(before)} questions the base model answers {sum(before)} rightly; {lost} of those are lost and "
        f"{won} others won."
    )
    return _check("general_probes", share, limit, ok, detail)


def chance_of_loss(lost: int, won: int) -> float:
    """Return how likely so many losses, or more, are among ``lost`` + ``won`` changes that go either way by chance."""
    changes = lost + won
    as_many = sum(math.comb(changes, count) for count in range(lost, changes + 1))
    return as_many / (1 << changes)


def _check(name: str, value: float, limit: float, ok: bool, detail: str) -> Check:
    """Return a check; a figure that is not finite fails, and is kept as None since JSON has no word for it."""
    finite = math.isfinite(value)
    return Check(name, value if finite else None, limit, ok and finite, detail)
