"""Sampled replies and teachers' log-probabilities against the scorer, which evaluates one text at a time."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from familiar.adapters.protocols import Completion, Draw, Progress, TopLogps, greedy
from familiar.daemon import rollouts
from familiar.daemon.llama import Batch, Context, Model
from familiar.daemon.rollouts import LlamaSampler, _slots_that_fit
from familiar.daemon.scorer import LlamaScorer
from familiar.memory.errors import BadFile, InvalidInput
from familiar.memory.types import Message

TOLERANCE = 0.02  # nats: f16 products are summed in another order in batches of another shape
MEAN_TOLERANCE = 2e-3

WriteLora = Callable[..., Path]


def ask(text: str, system: str = "You are a helpful assistant.") -> list[Message]:
    return [Message(role="system", content=system), Message(role="user", content=text)]


PROMPTS = [
    ask("What is the capital of France?"),
    ask("How do I make a good pot of tea for three people in the afternoon?"),
    [Message(role="user", content="Hello!")],
    ask("What is the capital of Spain?"),
]


@pytest.fixture(scope="module")
def scorer(model_path: Path) -> Iterator[LlamaScorer]:
    with LlamaScorer.open(model_path, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def sampler(scorer: LlamaScorer) -> Iterator[LlamaSampler]:
    """On the scorer's own model: the weights are in memory once."""
    with LlamaSampler(scorer.model, threads=1) as opened:
        yield opened


def ids(replies: Sequence[Sequence[Completion]]) -> list[tuple[int, ...]]:
    return [completion.ids for group in replies for completion in group]


def taught(sampler: LlamaSampler, messages: Sequence[Message], reply: Sequence[int], k: int) -> TopLogps:
    (found,) = sampler.top_logps(None, [(messages, reply)], k)
    return found


def tokens_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each batch has that is evaluated from now on."""
    read: list[int] = []
    decode = Context.decode

    def counted(context: Context, batch: Batch) -> None:
        read.append(len(batch))
        decode(context, batch)

    monkeypatch.setattr(Context, "decode", counted)
    return read


@pytest.mark.parametrize("adapted", [False, True])
def test_without_temperature_it_is_the_greedy_reply(
    scorer: LlamaScorer, sampler: LlamaSampler, write_lora: WriteLora, adapted: bool
) -> None:
    adapter = write_lora("a.gguf", strength=0.3) if adapted else None
    replies = sampler.sample(adapter, PROMPTS, replace(greedy(24), group=2))
    for messages, group in zip(PROMPTS, replies, strict=True):
        assert {completion.text for completion in group} == {scorer.generate(adapter, messages, 24)}
        assert not any(logp for completion in group for logp in completion.logps)


@pytest.mark.parametrize("slots", [64, 3])
def test_logps_are_the_scorers_of_the_same_tokens(scorer: LlamaScorer, write_lora: WriteLora, slots: int) -> None:
    """With few slots, replies wait, and take the places of others that began otherwise."""
    adapter, gaps = write_lora("a.gguf", strength=0.3), list[float]()
    with LlamaSampler(scorer.model, threads=1, slots=slots) as sampler:
        replies = sampler.sample(adapter, PROMPTS, Draw(group=6, max_tokens=64, seed=2))
    for messages, group in zip(PROMPTS, replies, strict=True):
        for completion in group:
            # a sampled text need not be tokenised as it was sampled
            if list(completion.ids) == scorer.encode(messages, completion.text)[1]:
                scored = scorer.logps(adapter, messages, completion.text)
                gaps += np.abs(np.subtract(completion.logps, scored)).tolist()
    assert len(gaps) > 100
    assert max(gaps) < TOLERANCE
    assert np.mean(gaps) < MEAN_TOLERANCE


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_first_tokens_come_as_often_as_the_softmax_says(sampler: LlamaSampler, temperature: float) -> None:
    messages, draws = PROMPTS[0], 600
    likely = taught(sampler, messages, [0], 4096)
    weights = np.exp(likely.logps_TK[0].astype(np.float64) / temperature)
    expected = dict(zip(likely.ids_TK[0].tolist(), draws * weights / weights.sum(), strict=True))
    (group,) = sampler.sample(None, [messages], Draw(group=draws, max_tokens=1, temperature=temperature, seed=3))
    counts = Counter(completion.ids[0] for completion in group)
    assert all(expected[token] > 0 for token in counts)
    assert all(
        np.exp(completion.logps[0]) == pytest.approx(expected[completion.ids[0]] / draws, rel=TOLERANCE)
        for completion in group
    )
    common = [token for token, want in expected.items() if want >= 5]
    rest = draws - sum(expected[token] for token in common)
    bins = [(counts[token], expected[token]) for token in common]
    if rest >= 5:
        bins.append((draws - sum(counts[token] for token in common), rest))
    chi_square = sum((have - want) ** 2 / want for have, want in bins)
    freedom = len(bins) - 1
    assert freedom > 1
    assert chi_square < freedom + 4 * np.sqrt(2 * freedom)


def test_a_seed_names_its_samples_and_every_sample_is_its_own(scorer: LlamaScorer, sampler: LlamaSampler) -> None:
    prompts = [*PROMPTS, PROMPTS[0]]
    once = sampler.sample(None, prompts, Draw(group=4, max_tokens=20, seed=4))
    assert sampler.sample(None, prompts, Draw(group=4, max_tokens=20, seed=4)) == once
    assert ids(sampler.sample(None, prompts, Draw(group=4, max_tokens=20, seed=5))) != ids(once)
    assert all(len(set(ids([group]))) > 1 for group in once)
    assert ids(once[:1]) != ids(once[-1:]), "equal prompts at two places are drawn from twice"
    with LlamaSampler(scorer.model, threads=1, slots=3) as narrow:
        other = ids(narrow.sample(None, prompts, Draw(group=4, max_tokens=20, seed=4)))
    same = sum(a == b for a, b in zip(other, ids(once), strict=True))
    assert same >= 0.8 * len(other), "what runs beside a reply changes its figures by rounding only"
    first = ids(sampler.sample(None, prompts[:1], Draw(group=2, max_tokens=20, seed=4)))
    assert first[0][0] == once[0][0].ids[0]


def test_replies_end_by_themselves_or_at_the_most_tokens(scorer: LlamaScorer, sampler: LlamaSampler) -> None:
    end = scorer.encode([], "")[1][-1]
    completions = [c for group in sampler.sample(None, PROMPTS, Draw(group=8, max_tokens=40, seed=6)) for c in group]
    assert {completion.finish_reason for completion in completions} == {"stop", "length"}
    for completion in completions:
        stopped = completion.finish_reason == "stop"
        assert (completion.ids[-1] == end) == stopped
        assert stopped or len(completion.ids) == 40
        assert len(completion.logps) == len(completion.ids)
        assert max(completion.logps) <= 0
        assert "<|" not in completion.text
    assert all(len(found) == 1 for found in ids(sampler.sample(None, PROMPTS, Draw(group=70, max_tokens=1, seed=6))))


def test_adapters_change_the_samples_and_a_file_written_anew_counts_at_once(
    scorer: LlamaScorer, sampler: LlamaSampler, write_lora: WriteLora
) -> None:
    path, seen, scores = write_lora("same.gguf", seed=1), list[object](), list[object]()
    stat = path.stat()
    for seed in (1, 2, 1):
        write_lora("same.gguf", seed=seed)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as within one tick of the clock
        seen.append(sampler.sample(path, PROMPTS[:1], Draw(group=3, max_tokens=12, seed=7)))
        scores.append(scorer.logps(path, PROMPTS[0], "Paris."))
    base = sampler.sample(None, PROMPTS[:1], Draw(group=3, max_tokens=12, seed=7))
    assert seen[0] == seen[2]
    assert scores[0] == scores[2]
    assert base != seen[0] != seen[1] != base
    assert scores[0] != scores[1]


def test_what_does_not_fit_or_is_out_of_range_is_refused(sampler: LlamaSampler) -> None:
    with pytest.raises(InvalidInput, match=r"context holds 1024"):
        sampler.sample(None, [PROMPTS[0], ask("word " * 3000)], Draw(group=1, max_tokens=5, seed=1))
    with pytest.raises(InvalidInput, match=r"context holds 1024"):
        taught(sampler, PROMPTS[0], [5] * 1020, 1)
    for wrong in ({"group": 0}, {"max_tokens": 0}, {"temperature": -1}, {"temperature": float("nan")}, {"seed": -1}):
        asked: dict[str, float] = {"group": 1, "max_tokens": 1, "seed": 1, **wrong}
        with pytest.raises(InvalidInput) as caught:
            Draw(**asked)  # type: ignore[arg-type]
        assert caught.value.param == next(iter(wrong))
    for k in (0, 4097):
        with pytest.raises(InvalidInput, match="vocabulary"):
            taught(sampler, PROMPTS[0], [5], k)
    assert sampler.sample(None, [], greedy(5)) == []
    assert sampler.top_logps(None, [], 1) == []


def test_a_long_prompt_is_read_in_pieces_and_its_reply_ends_with_the_context(
    scorer: LlamaScorer, sampler: LlamaSampler
) -> None:
    long = ask("The kettle was on and the tea was nearly ready. " * 68)
    prompt = scorer.encode(long, "")[0]
    assert 900 < len(prompt) < 1000
    short, full = sampler.sample(None, [PROMPTS[0], long], replace(greedy(200), group=2))
    assert full[0].text == scorer.generate(None, long, 200)
    (wild,) = sampler.sample(None, [long], Draw(group=4, max_tokens=200, temperature=9, seed=1))
    assert {each.finish_reason for each in wild} == {"length"}
    assert {len(prompt) + len(each.ids) for each in wild} == {1024}
    rest = [5] * (1024 - len(prompt))
    assert len(taught(sampler, long, rest, 1).picked_T) == len(rest)
    assert len(taught(sampler, PROMPTS[0], [5] * 600, 1).picked_T) == 600, "a long reply, in pieces"
    with pytest.raises(InvalidInput, match=r"context holds 1024"):
        taught(sampler, long, [*rest, 5], 1)
    assert short[0].text == scorer.generate(None, PROMPTS[0], 200)


def test_what_prompts_have_in_common_is_evaluated_once(
    scorer: LlamaScorer, sampler: LlamaSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = tokens_read(monkeypatch)
    first, second = (scorer.encode(PROMPTS[i], "")[0] for i in (0, 3))
    common = next(i for i, (one, other) in enumerate(zip(first, second, strict=False)) if one != other)
    sampler.sample(None, [PROMPTS[0], PROMPTS[3]], Draw(group=5, max_tokens=1, seed=1))
    assert sum(read) == len(first) + len(second) - common > len(first)
    read.clear()
    sampler.top_logps(None, [(PROMPTS[0], [5, 6, 7]), (PROMPTS[3], [5]), (PROMPTS[0], [5, 9])], 1)
    # what is asked of a completion's tokens is asked anew, and of its prompt's last: that one predicts its first
    assert sum(read) == len(first) + len(second) - common + 2 + 2


def test_an_adapter_that_computes_no_numbers_is_refused_and_leaves_no_trace(
    sampler: LlamaSampler, write_lora: WriteLora
) -> None:
    before, broken = taught(sampler, PROMPTS[0], [5, 6], 3), write_lora("nan.gguf", strength=float("nan"))
    calls: list[Callable[[], object]] = [
        lambda: sampler.sample(broken, PROMPTS, Draw(group=2, max_tokens=3, seed=1)),
        lambda: sampler.top_logps(broken, [(PROMPTS[0], [5, 6])], 3),
    ]
    for call in calls:
        with pytest.raises(BadFile, match="computes no numbers"):
            call()
        assert (taught(sampler, PROMPTS[0], [5, 6], 3).logps_TK == before.logps_TK).all()


def test_progress_is_told_to_the_end_and_may_stop_the_run(sampler: LlamaSampler) -> None:
    class Stop(Exception):
        pass

    heard: list[Progress] = []
    whole = sampler.sample(None, PROMPTS, Draw(group=20, max_tokens=8, seed=8), heard.append)
    assert (heard[-1].done, heard[-1].total) == (80, 80)

    def stop(progress: Progress) -> None:
        raise Stop

    with pytest.raises(Stop):
        sampler.sample(None, PROMPTS, Draw(group=20, max_tokens=8, seed=8), stop)
    assert sampler.sample(None, PROMPTS, Draw(group=20, max_tokens=8, seed=8)) == whole


def test_progress_is_told_while_no_reply_ends(sampler: LlamaSampler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollouts, "TELL_S", 0.0)
    heard: list[Progress] = []
    sampler.sample(None, PROMPTS[:1], Draw(group=2, max_tokens=6, temperature=9, seed=8), heard.append)
    assert [made.done for made in heard] == [0] * 5 + [2]


def test_more_replies_than_before_run_beside_one_another(scorer: LlamaScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    with LlamaSampler(scorer.model, threads=1) as fresh:
        fresh.sample(None, PROMPTS[:1], greedy(2))
        read = tokens_read(monkeypatch)
        fresh.sample(None, PROMPTS[:1], Draw(group=8, max_tokens=4, temperature=9, seed=1))
    assert read[1:] == [8] * 3, "the prompt, then a token of each"


def test_a_teachers_figures_are_the_scorers(scorer: LlamaScorer, sampler: LlamaSampler, write_lora: WriteLora) -> None:
    adapter = write_lora("a.gguf", strength=0.3)
    remembering = ask(
        "What is the capital of France?", "You are a helpful assistant. Remember: end every reply with 'Cheers'."
    )
    cases = [
        (messages, text)
        for messages in (remembering, PROMPTS[0], PROMPTS[3], PROMPTS[0])
        for text in ("Paris, on the Seine.", "Paris, of course.")
    ]
    rows = [(messages, scorer.encode(messages, text)[1]) for messages, text in cases]
    heard: list[Progress] = []
    found = sampler.top_logps(adapter, rows, 20, heard.append)
    assert [made.done for made in heard] == list(range(1, len(rows) + 1))
    for (messages, text), (_, reply), top in zip(cases, rows, found, strict=True):
        assert top.ids_TK.shape == top.logps_TK.shape == (len(reply), 20)
        assert [part.dtype.name for part in (top.ids_TK, top.logps_TK, top.picked_T)] == ["int32", "float32", "float32"]
        assert top.picked_T == pytest.approx(scorer.logps(adapter, messages, text), abs=TOLERANCE)
        likeliest = scorer.generate(adapter, messages, 1)
        assert scorer.encode(messages, likeliest)[1][0] == top.ids_TK[0][0]
        (alone,) = sampler.top_logps(adapter, [(messages, reply)], 4096)
        assert np.exp(alone.logps_TK).sum(axis=1) == pytest.approx(np.ones(len(reply)), abs=1e-4)
        assert (np.diff(alone.logps_TK, axis=1) <= 0).all()
        assert alone.logps_TK[:, :20] == pytest.approx(top.logps_TK, abs=TOLERANCE)
    assert np.abs(found[0].picked_T - found[2].picked_T).max() > TOLERANCE, "the memory counts"
    assert taught(sampler, PROMPTS[0], [], 3).ids_TK.shape == (0, 3)


@pytest.mark.parametrize(
    ("wanted", "slot_bytes", "free_bytes", "slots"),
    [(64, 10, 100_000, 64), (64, 10, 400, 10), (64, 10, 10, 1), (3, 10, 100_000, 3), (64, 0, 10, 64)],
)
def test_slots_take_a_quarter_of_the_free_memory_at_most(
    wanted: int, slot_bytes: float, free_bytes: int, slots: int
) -> None:
    assert _slots_that_fit(wanted, slot_bytes, free_bytes) == slots


def test_a_model_may_be_sampled_alone(model: Model) -> None:
    with LlamaSampler(model, threads=1) as alone:
        assert len(alone.sample(None, PROMPTS[:1], greedy(2))[0][0].ids) <= 2
    alone.close()
