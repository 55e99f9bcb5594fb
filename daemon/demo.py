"""``familiar demo``: the whole loop on a fresh store, in front of a person, through the openai client.

A real service on a free port is asked everyday questions and corrected as a user would; the corrections are remembered
on the next request, then learned into an adapter by the learner itself, and probes that were never corrected show what
changed. Nothing about the outcome is written here: every figure is counted from replies by the preference's checker.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from familiar.daemon import learning, local_service
from familiar.daemon import settings as settings_module
from familiar.daemon.demo_prompts import CORRECTED, PREFERENCE, PROBES, REMEMBERED, Preference
from familiar.memory.errors import FamiliarError, InvalidInput, MissingExtra
from familiar.memory.types import Message

if TYPE_CHECKING:
    from openai import OpenAI

    from familiar.daemon.client import Client
    from familiar.daemon.settings import Settings

HOST = "127.0.0.1"
MAX_TOKENS = 120
SHOWN = 3
"""How many questions of a step are printed in full."""


@dataclass
class Figures:
    """What the demo measured. Adherence is the share of probes whose reply follows the preference."""

    adherence: dict[str, float | None] = field(
        default_factory=lambda: dict.fromkeys(("base", "memory", "adapter", "both"))
    )
    general_kept: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


LIMITS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "base": ("under 30 %", lambda share: share < 0.3),
    "memory": ("at least 80 %", lambda share: share >= 0.8),
    "adapter": ("over 80 %", lambda share: share > 0.8),
    "both": ("over 80 %", lambda share: share > 0.8),
}
GENERAL_KEPT = 0.98


def run(model: str | None, threads: int | None, keep: Path | None, *, as_json: bool) -> bool:
    """Run the demo, print the transcript (or one JSON object), and return whether the loop did its work.

    Raises:
        MissingExtra: the openai client is not installed.
        InvalidInput: ``keep`` is a folder that already holds something.
    """
    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise InvalidInput(f"{keep} is not empty: the demo needs a folder of its own, name a new one.", "keep")
    say: Callable[[str], None] = (lambda text: None) if as_json else _say
    with tempfile.TemporaryDirectory(prefix="familiar-demo-") as temporary:
        folder = keep if keep is not None else Path(temporary)
        figures = _run(model, threads, folder, PREFERENCE, say)
    verdict(figures)
    if as_json:
        _say(json.dumps(report(figures)))
    else:
        _say(table(figures))
    return not figures.failures


def _run(
    model: str | None, threads: int | None, folder: Path, preference: Preference, say: Callable[[str], None]
) -> Figures:
    figures = Figures()
    settings = settings_module.load({"model": model, "threads": threads, "data_dir": folder / "data", "host": HOST})
    log = settings.data_dir / "logs" / "service.log"
    say(f"A fresh store in {folder}, and a service of its own.")
    with local_service.running(HOST, local_service.free_port(HOST), settings.serve_arguments(), log) as service:
        ask = _asker(_openai(service.base_url))
        with _timed(figures, "chat"):
            replies = _chat(ask, say)
        with _timed(figures, "correct"):
            _correct(service, ask, replies, preference, say)
        with _timed(figures, "learn"):
            version = _learn(settings, figures, say)
        with _timed(figures, "probe"):
            _probe(ask, version, preference, figures, say)
        if version is not None:
            with _timed(figures, "export"):
                _export(settings, version, folder, say)
    return figures


@dataclass(frozen=True)
class Reply:
    """What the service answered; ``whole`` is False when the token limit cut it off."""

    completion_id: str
    text: str
    whole: bool


Ask = Callable[[str, Sequence[Message]], Reply]
"""(model id, messages) -> reply."""


def _openai(base_url: str) -> "OpenAI":
    try:
        from openai import OpenAI
    except ImportError as error:
        raise MissingExtra("The demo needs the openai client: pip install 'familiar-llm[demo]'.") from error
    return OpenAI(base_url=f"{base_url}/v1", api_key="not-needed", max_retries=0)


def _asker(client: "OpenAI") -> Ask:
    def ask(model: str, messages: Sequence[Message]) -> Reply:
        answer = client.chat.completions.create(
            model=model, messages=cast("Any", list(messages)), temperature=0, max_tokens=MAX_TOKENS
        )
        choice = answer.choices[0]
        return Reply(answer.id, choice.message.content or "", choice.finish_reason != "length")

    return ask


def _chat(ask: Ask, say: Callable[[str], None]) -> list[Reply]:
    """Ask the questions of a day."""
    say(f"\n1. A day of questions ({len(CORRECTED)} of them, the first {SHOWN} shown)")
    replies = []
    for number, prompt in enumerate(CORRECTED):
        replies.append(ask("familiar", _said(prompt)))
        if number < SHOWN:
            say(_turn(prompt, replies[-1].text))
    return replies


def _correct(
    service: "Client",
    ask: Ask,
    replies: Sequence[Reply],
    preference: Preference,
    say: Callable[[str], None],
) -> None:
    """Correct the first reply and say why, see it remembered at once, then correct the others."""
    wanted = preference.rewrite(replies[0].text)
    say(f"\n2. The first reply is corrected, with a rule: “{preference.rule}”")
    say(f"   corrected to: {wanted}")
    service.feedback(completion_id=replies[0].completion_id, correction=wanted, note=preference.rule)
    next_reply = ask("familiar", _said(REMEMBERED)).text
    say("\n3. The very next request remembers it (the weights are the same as before)")
    say(_turn(REMEMBERED, next_reply))
    say(f"   follows the rule: {'yes' if preference.follows(next_reply) else 'no'}")
    # Nobody corrects what is as they want it, or puts a last line under half a sentence.
    others = [reply for reply in replies[1:] if reply.whole and not preference.follows(reply.text)]
    for reply in others:
        service.feedback(completion_id=reply.completion_id, correction=preference.rewrite(reply.text))
    say(f"\n4. The day's other replies are corrected in the same way: {len(others) + 1} corrections in all.")


def _learn(settings: "Settings", figures: Figures, say: Callable[[str], None]) -> int | None:
    """Learn as ``familiar learn`` does, while the service runs; the version served afterwards, None if none is."""
    from familiar.daemon.cli_learn import outcome_lines, progress_display

    say("\n5. familiar learn")
    with progress_display(err=True) as on_event:
        try:
            outcome = learning.run_learner(settings, on_event)
        except FamiliarError as error:
            figures.failures.append(f"learning failed: {error}")
            say(f"   {error}")
            return None
    for line in outcome_lines(outcome):
        say(f"   {line}")
    figures.seconds.update({f"learn.{phase}": round(seconds, 2) for phase, seconds in outcome.seconds.items()})
    if outcome.state != "promoted":
        figures.failures.append(outcome.message)
    return outcome.version


def _probe(ask: Ask, version: int | None, preference: Preference, figures: Figures, say: Callable[[str], None]) -> None:
    """Ask what was never corrected, with and without memory and adapter, and what has nothing to do with it."""
    models = {"base": "familiar:base", "memory": "familiar:memory"}
    if version is not None:
        models |= {"adapter": f"familiar:v{version}", "both": "familiar"}
    say(f"\n6. {len(PROBES)} questions that were never corrected, asked of each model (the first {SHOWN} shown)")
    replies = {name: [ask(model, _said(prompt)).text for prompt in PROBES] for name, model in models.items()}
    for name, said in replies.items():
        figures.adherence[name] = sum(map(preference.follows, said)) / len(said)
    for number, prompt in enumerate(PROBES[:SHOWN]):
        say(f"   You: {prompt}")
        for name, said in replies.items():
            say(f"     {name:8} {_one_line(said[number])}")
    if version is not None:
        figures.general_kept = _general_kept(ask, models["base"], models["adapter"])


def _general_kept(ask: Ask, base: str, adapter: str) -> float | None:
    """How many general questions the adapter answers right, beside how many the base model does."""
    from familiar.adapters.probes import load_probes

    questions = load_probes().general
    base_right, right = (
        sum(question.is_answered(ask(model, question.messages).text) for question in questions)
        for model in (base, adapter)
    )
    return right / base_right if base_right else None


def _export(settings: "Settings", version: int, folder: Path, say: Callable[[str], None]) -> None:
    from familiar.daemon.cli_learn import export_version

    say("\n7. Export, for other tools")
    for form, out in (("gguf", folder / "adapter.gguf"), ("peft", folder / "adapter-peft")):
        written = export_version(settings, version, form, out)
        say(f"   {form}: {written}")


def verdict(figures: Figures) -> None:
    """Add to ``figures.failures`` whatever is not as a working loop has it."""
    for name, (limit, fits) in LIMITS.items():
        share = figures.adherence[name]
        if share is None or not fits(share):
            have = "was not measured" if share is None else f"is {share:.0%}"
            figures.failures.append(f"followed by {name} {have}, {limit} is wanted")
    kept = figures.general_kept
    if kept is None or kept < GENERAL_KEPT:
        have = "were not measured" if kept is None else f"are {kept:.1%}"
        figures.failures.append(f"general answers kept {have}, at least {GENERAL_KEPT:.0%} is wanted")


def report(figures: Figures) -> dict[str, Any]:
    """The figures as ``--json`` prints them."""
    return {
        "ok": not figures.failures,
        "adherence": figures.adherence,
        "general_kept": figures.general_kept,
        "seconds": figures.seconds,
        "failures": figures.failures,
    }


def table(figures: Figures) -> str:
    """The figures as a person reads them."""
    lines = ["", "followed, on prompts never corrected   wanted"]
    for name, (limit, _) in LIMITS.items():
        lines.append(f"  {name:10} {_percent(figures.adherence[name]):>24}   {limit}")
    lines.append(f"  {'general answers kept':20} {_percent(figures.general_kept):>14}   at least {GENERAL_KEPT:.0%}")
    phases = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in figures.seconds.items() if "." not in name)
    lines.append(f"  time: {phases}")
    lines += [f"NOT OK: {failure}" for failure in figures.failures] or ["The loop works."]
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


@contextmanager
def _timed(figures: Figures, phase: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    figures.seconds[phase] = round(time.monotonic() - started, 2)


def _said(prompt: str) -> list[Message]:
    return [Message(role="user", content=prompt)]


def _turn(prompt: str, reply: str) -> str:
    return f"   You: {prompt}\n   It:  {_one_line(reply)}"


def _one_line(text: str) -> str:
    return " / ".join(line.strip() for line in text.splitlines() if line.strip())


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
