"""From corrections to a judged GGUF on the built-in model, with every real part in between."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

from familiar.adapters.gate import Gate
from familiar.adapters.gguf_lora import to_gguf
from familiar.adapters.parity import gaps, torch_logps
from familiar.adapters.probes import Probes, load_probes
from familiar.adapters.recipe import Recipe
from familiar.adapters.rows import Encoded
from familiar.adapters.train import train
from familiar.daemon.scorer import LlamaScorer
from familiar.feedback.pairs import Example
from familiar.memory.types import Message

QUESTIONS = ("How do I store honey?", "Is it going to be windy?", "What is a kettle for?", "Can you help me?", "Hello!")
EXAMPLES = [
    Example(f"fb-{i}", (Message(role="user", content=text),), "Aye, captain!", "I do not know that.", f"group-{i}")
    for i, text in enumerate(QUESTIONS)
]


def max_gap(*given: Any) -> float:
    return max(gaps(*given))


@pytest.fixture(scope="module")
def scorer(model_path: Path) -> Iterator[LlamaScorer]:
    with LlamaScorer.open(model_path, threads=1) as opened:
        yield opened


def encoded(scorer: LlamaScorer, examples: Sequence[Example]) -> list[Encoded]:
    rows = []
    for example in examples:
        prompt_ids, chosen_ids = scorer.encode(example.messages, example.chosen)
        _, rejected_ids = scorer.encode(example.messages, example.rejected or "")
        rows.append(Encoded(example.id, tuple(prompt_ids), tuple(chosen_ids), tuple(rejected_ids)))
    return rows


def test_the_base_scores_alike_in_both(scorer: LlamaScorer, base: PreTrainedModel) -> None:
    for example, trained in zip(EXAMPLES, torch_logps(base, None, encoded(scorer, EXAMPLES)), strict=True):
        assert scorer.logps(None, example.messages, example.chosen) == pytest.approx(trained, abs=0.02)


def test_a_gap_is_seen_when_another_adapter_is_served(
    scorer: LlamaScorer, base: PreTrainedModel, random_adapter: Path, model_path: Path, tmp_path: Path
) -> None:
    to_gguf(random_adapter, tmp_path / "right.gguf", model_path)
    assert max_gap(scorer, tmp_path / "right.gguf", base, random_adapter, EXAMPLES) < 0.05
    other = tmp_path / "other"
    rows = encoded(scorer, EXAMPLES)
    folder = train(base, rows[:3], rows[3:], Recipe(epochs=1), folder=other, reference_logps={})
    assert max_gap(scorer, tmp_path / "right.gguf", base, folder, EXAMPLES) > 0.5


def test_corrections_become_an_adapter_that_the_gate_can_judge(
    scorer: LlamaScorer, base: PreTrainedModel, model_path: Path, tmp_path: Path
) -> None:
    rows = encoded(scorer, EXAMPLES)
    folder = train(base, rows[:3], rows[3:], Recipe(epochs=4), folder=tmp_path / "run", reference_logps={})
    gguf = tmp_path / "adapter.gguf"
    to_gguf(folder, gguf, model_path)
    gap = max_gap(scorer, gguf, base, folder, EXAMPLES)
    all_probes = load_probes()
    few = Probes(all_probes.general[:3], all_probes.neutral[:2], all_probes.false_claims[:3], all_probes.passages[:1])
    report = Gate(scorer, None, EXAMPLES[3:], few).judge(gguf, parity=gap)
    checks = {check.name: check for check in report.checks}
    assert checks["parity"].ok
    assert checks["changes_output"].ok
    # Two rows are too few for the check's interval, not for its mean.
    for row in EXAMPLES[3:]:
        assert sum(scorer.logps(gguf, row.messages, row.chosen)) > sum(scorer.logps(None, row.messages, row.chosen))
    assert checks["kl_to_base"].value is not None
    assert checks["kl_to_base"].value > 0
