"""Log-probabilities against plain llama.cpp and plain numpy."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from familiar.daemon.engine import Engine, Sampling
from familiar.daemon.engine_options import EngineOptions
from familiar.daemon.scorer import LlamaScorer
from familiar.memory.errors import BadFile, InvalidInput
from familiar.memory.types import Message

ASK = [Message(role="user", content="What is the capital of France?")]
TOLERANCE = 0.02  # nats: f16 products are summed in another order in batches of another shape


@pytest.fixture(scope="module")
def scorer(model_path: Path) -> Iterator[LlamaScorer]:
    with LlamaScorer.open(model_path, threads=1) as opened:
        yield opened


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max()
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return result


def plain_rows(plain: Any, prompt: list[int], reply: list[int]) -> list[NDArray[np.float64]]:
    """One token after another: the log-probabilities at each token of the reply."""
    rows = [log_softmax(plain.feed(prompt))]
    rows += [log_softmax(plain.feed([token])) for token in reply[:-1]]
    return rows


@pytest.mark.parametrize("adapted", [False, True])
def test_logps_are_plain_llamas(
    scorer: LlamaScorer, plain: Callable[..., Any], write_lora: Callable[..., Path], adapted: bool
) -> None:
    adapter = write_lora("a.gguf") if adapted else None
    prompt, reply = scorer.encode(ASK, "Paris, on the Seine.")
    rows = plain_rows(plain(adapter), prompt, reply)
    expected = [row[token] for row, token in zip(rows, reply, strict=True)]
    assert scorer.logps(adapter, ASK, "Paris, on the Seine.") == pytest.approx(expected, abs=TOLERANCE)


def test_the_last_token_scored_is_the_end_of_turn(scorer: LlamaScorer) -> None:
    assert len(scorer.logps(None, ASK, "")) == 1
    assert scorer.encode(ASK, "")[1] == [scorer.encode(ASK, "x")[1][-1]]


def test_scores_do_not_depend_on_what_was_scored_before(scorer: LlamaScorer, write_lora: Callable[..., Path]) -> None:
    first, adapter = scorer.logps(None, ASK, "Paris."), write_lora("b.gguf", strength=3.0)
    other = scorer.logps(adapter, ASK, "Paris.")
    scorer.generate(adapter, ASK, 5)
    assert scorer.logps(None, ASK, "Paris.") == first
    assert scorer.logps(adapter, ASK, "Paris.") == other
    assert first != other


def test_long_texts_are_scored_in_pieces(scorer: LlamaScorer, plain: Callable[..., Any]) -> None:
    text = "The kettle was on and the tea was nearly ready. " * 70
    logps = scorer.text_logps(None, text)
    ids = scorer.encode([], text)[1][:-1]
    assert len(logps) == len(ids) - 1 > 600
    rows = plain_rows(plain(), ids[:1], ids[1:])
    expected = [row[token] for row, token in zip(rows, ids[1:], strict=True)]
    assert logps == pytest.approx(expected, abs=TOLERANCE)
    assert scorer.text_logps(None, "") == []


def test_kl_is_the_mean_over_tokens_of_the_sum_over_the_vocabulary(
    scorer: LlamaScorer, plain: Callable[..., Any], write_lora: Callable[..., Path]
) -> None:
    adapter = write_lora("c.gguf")
    prompt, reply = scorer.encode(ASK, "Paris, on the Seine.")
    base, adapted = plain_rows(plain(), prompt, reply), plain_rows(plain(adapter), prompt, reply)
    expected = np.mean([np.sum(np.exp(a) * (a - b)) for a, b in zip(adapted, base, strict=True)])
    assert expected > 0.01
    said = "Paris, on the Seine."
    assert scorer.token_kl(adapter, ASK, said, said) == pytest.approx(float(expected), rel=0.05)
    rewritten = f"Ahoy!\n{said}"
    longer = scorer.encode(ASK, rewritten)[1]
    added = len(longer) - len(reply)
    assert longer[added:] == reply
    greeted = plain_rows(plain(adapter), prompt, longer)[added:]
    expected = np.mean([np.sum(np.exp(a) * (a - b)) for a, b in zip(greeted, base, strict=True)])
    assert scorer.token_kl(adapter, ASK, said, rewritten) == pytest.approx(float(expected), rel=0.05)
    still = write_lora("zero.gguf", strength=0.0)
    assert scorer.token_kl(still, ASK, said, said) == pytest.approx(0, abs=1e-6)


def test_generation_and_prompts_are_the_engines(
    scorer: LlamaScorer, model_path: Path, write_lora: Callable[..., Path]
) -> None:
    adapter = write_lora("d.gguf", strength=3.0)
    with Engine.open(model_path, EngineOptions(slots=1, threads=1)) as engine:
        prompt = engine.encode_prompt(ASK)
        assert scorer.encode(ASK, "Paris.")[0] == prompt
        for path in (None, adapter):
            sampling = Sampling(temperature=0, max_tokens=30)
            assert scorer.generate(path, ASK, 30) == engine.generate(prompt, sampling, adapter=path).text()
    assert scorer.generate(None, ASK, 0) == ""


def test_a_text_that_does_not_fit_names_both_numbers(scorer: LlamaScorer) -> None:
    with pytest.raises(InvalidInput, match=r"tokens but the context holds 1024"):
        scorer.text_logps(None, "word " * 3000)


def test_an_adapter_that_computes_no_numbers_is_refused_and_leaves_no_trace(
    scorer: LlamaScorer, write_lora: Callable[..., Path]
) -> None:
    before, broken = scorer.logps(None, ASK, "Paris."), write_lora("nan.gguf", strength=float("nan"))
    calls: list[Callable[[], object]] = [
        lambda: scorer.logps(broken, ASK, "Paris."),
        lambda: scorer.token_kl(broken, ASK, "Paris.", "Paris."),
        lambda: scorer.generate(broken, ASK, 3),
    ]
    for call in calls:
        with pytest.raises(BadFile, match="computes no numbers"):
            call()
        assert scorer.logps(None, ASK, "Paris.") == before


def test_files_that_cannot_be_used_are_bad_files(scorer: LlamaScorer, tmp_path: Path) -> None:
    with pytest.raises(BadFile):
        LlamaScorer.open(tmp_path / "none.gguf")
    with pytest.raises(BadFile):
        scorer.logps(tmp_path / "none.gguf", ASK, "Paris.")
    assert scorer.logps(None, ASK, "Paris.")
