"""The engine on the built-in model: what it says, to whom, and what it does with anything that is wrong."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from familiar.daemon.engine import Engine, EngineBusy, EngineClosed, Generation, Sampling
from familiar.daemon.engine_options import EngineOptions
from familiar.daemon.llama import Batch, Context, Model
from familiar.daemon.sampling import Sampler
from familiar.memory.errors import BadFile, Busy, FamiliarError, InvalidInput
from familiar.memory.types import Message

GREEDY = Sampling(temperature=0, max_tokens=24)


def ask(text: str) -> list[Message]:
    return [Message(role="system", content="You are helpful."), Message(role="user", content=text)]


@pytest.fixture(scope="module")
def engine(model_path: Path) -> Iterator[Engine]:
    with Engine.open(model_path, EngineOptions(threads=1)) as opened:
        yield opened


@pytest.fixture
def prompt(engine: Engine) -> list[int]:
    return engine.encode_prompt(ask("What should I cook tonight?"))


def plain_greedy(plain: Any, model: Model, ids: Sequence[int], tokens: int) -> str:
    """The greedy reply by plain llama.cpp calls and numpy."""
    logits, reply = plain.feed(ids), b""
    for _ in range(tokens):
        token = int(np.argmax(logits))
        if model.vocab.ends_generation(token):
            break
        reply += model.vocab.piece(token)
        logits = plain.feed([token])
    return reply.decode("utf-8", "ignore")


def common(left: str, right: str) -> int:
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


# ---- the model ----


def test_info_describes_the_file(engine: Engine, model_path: Path) -> None:
    info = engine.info
    assert (info.path, info.architecture, info.name) == (model_path, "llama", "Familiar Base")
    assert info.size_bytes == model_path.stat().st_size
    assert info.context_tokens == info.trained_context_tokens >= 1024
    assert info.parameters > 1_000_000


def test_count_tokens_counts_control_spellings_as_text(engine: Engine, model: Model) -> None:
    assert engine.count_tokens("") == 0
    assert engine.count_tokens("Hi<|end|>") == len(model.vocab.tokenise("Hi<|end|>")) > 2


@pytest.mark.parametrize("keep", [0, 3, 4, 20, 1000, 60_000, -1])
def test_a_model_file_cut_short_is_a_bad_file(model_path: Path, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(model_path.read_bytes()[:keep])
    with pytest.raises(BadFile, match=r"cut\.gguf") as caught:
        Engine.open(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_model_is_a_bad_file(model_path: Path, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="No such file"):
        Engine.open(tmp_path / "none.gguf")
    with pytest.raises(BadFile, match="Is a directory"):
        Engine.open(tmp_path)
    text = tmp_path / "text.gguf"
    text.write_text("hello")
    with pytest.raises(BadFile, match="not a GGUF file"):
        Engine.open(text)
    strange = tmp_path / "strange.gguf"
    strange.write_bytes(model_path.read_bytes().replace(b"llama", b"lxama", 1))
    with pytest.raises(BadFile, match="unknown model architecture: 'lxama'"):
        Engine.open(strange)


def test_sizes_that_cannot_be_are_invalid(model_path: Path) -> None:
    with pytest.raises(InvalidInput, match="at most 1024 tokens of context but 4096"):
        Engine.open(model_path, EngineOptions(context_tokens=4096))
    with pytest.raises(InvalidInput, match="slots must be from 1 to 64"):
        Engine.open(model_path, EngineOptions(slots=0))


# ---- identity with plain llama.cpp ----


def test_base_logits_are_plain_to_the_bit_beside_other_slots_and_after_swaps(
    model: Model, plain: Callable[..., Any], write_lora: Callable[..., Path], prompt: list[int]
) -> None:
    adapter = model.load_adapter(write_lora("a.gguf", strength=3.0))
    context, batch = Context(model, context_tokens=1024, slots=4, threads=1), Batch()

    def run(slot: int) -> list[Any]:
        context.keep(slot, 0)
        rows, position = [], 0
        for tokens in (prompt, [50], [60], [70]):
            batch.clear()
            batch.add(slot, position, tokens, outputs=1)
            context.decode(batch)
            rows.append(context.outputs(1)[0].copy())
            position += len(tokens)
        return rows

    reference = plain()
    expected = [reference.feed(tokens) for tokens in (prompt, [50], [60], [70])]
    before = run(0)
    context.set_adapter(adapter)
    adapted = run(1)
    context.set_adapter(None)
    between = run(2)
    context.set_adapter(adapter)
    run(3)
    context.free_adapter(adapter)  # which takes it off
    after = run(1)
    context.close()
    for rows in (before, between, after):
        assert all(np.array_equal(row, want) for row, want in zip(rows, expected, strict=True))
    assert np.abs(adapted[0] - expected[0]).max() > 0.1


def test_greedy_replies_are_plain_before_between_and_after_adapters(
    engine: Engine, model: Model, plain: Callable[..., Any], write_lora: Callable[..., Path], prompt: list[int]
) -> None:
    lora = write_lora("b.gguf", seed=1, strength=3.0)
    base, adapted = (plain_greedy(plain(path), model, prompt, 24) for path in (None, lora))
    replies = [engine.generate(prompt, GREEDY, adapter=path).text() for path in (None, lora, None, lora, None)]
    assert replies == [base, adapted, base, adapted, base]
    assert base != adapted


def test_a_prompt_of_several_batches_is_plain(engine: Engine, model: Model, plain: Callable[..., Any]) -> None:
    prompt = engine.encode_prompt(ask("Tell me a story about tea. " * 110))
    assert 512 < len(prompt) < 1000
    assert engine.generate(prompt, GREEDY).text() == plain_greedy(plain(), model, prompt, 24)


# ---- replies ----


def test_chunks_join_to_the_text_and_the_last_says_why_it_ended(engine: Engine, prompt: list[int]) -> None:
    generation = engine.generate(prompt, Sampling(temperature=0, max_tokens=5))
    chunks = list(generation)
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].finish_reason == generation.finish_reason
    assert (
        "".join(chunk.text for chunk in chunks) == engine.generate(prompt, Sampling(temperature=0, max_tokens=5)).text()
    )
    assert (generation.usage.prompt_tokens, generation.usage.cached_tokens) == (len(prompt), 0)


def test_max_tokens_ends_by_length_and_an_end_token_by_stop(
    engine: Engine, model: Model, prompt: list[int], endless: Sampling
) -> None:
    cut = engine.generate(prompt, Sampling(temperature=0, max_tokens=7, logit_bias=endless.logit_bias))
    cut.text()
    assert (cut.finish_reason, cut.usage.completion_tokens) == ("length", 7)
    ended = engine.generate(prompt, Sampling(temperature=0, logit_bias=((model.vocab.end_of_turn, 1000.0),)))
    assert ended.text() == ""
    assert (ended.finish_reason, ended.usage.completion_tokens) == ("stop", 0)


def test_a_reply_ends_where_the_context_does(model_path: Path, endless: Sampling) -> None:
    with Engine.open(model_path, EngineOptions(context_tokens=256, slots=2, threads=1)) as small:
        prompt = small.encode_prompt(ask("Hi"))
        generation = small.generate(prompt, endless)
        generation.text()
        assert generation.finish_reason == "length"
        # the last token chosen needs no place: nothing is computed after it
        assert generation.usage.completion_tokens == 256 - len(prompt) + 1


def test_a_prompt_that_does_not_fit_names_both_numbers(engine: Engine, prompt: list[int]) -> None:
    with pytest.raises(
        InvalidInput, match=r"length is 1024 tokens, the reply included, but the messages have 1024"
    ) as caught:
        engine.generate((prompt * 100)[:1024], GREEDY)
    assert caught.value.param == "messages"
    assert engine.generate((prompt * 100)[:1023], Sampling(temperature=0)).usage.prompt_tokens == 1023
    with pytest.raises(InvalidInput, match="0 tokens"):
        engine.generate([], GREEDY)


def test_a_stop_string_ends_the_reply_and_is_not_in_it(engine: Engine, prompt: list[int], endless: Sampling) -> None:
    whole = engine.generate(prompt, Sampling(temperature=0, max_tokens=40, logit_bias=endless.logit_bias)).text()
    for stop in (whole[10:13], whole[5:25], whole[-4:]):
        sampling = Sampling(temperature=0, max_tokens=40, logit_bias=endless.logit_bias, stop=("never", stop))
        generation = engine.generate(prompt, sampling)
        assert generation.text() == whole[: whole.index(stop)]
        assert generation.finish_reason == "stop"


def test_a_seed_repeats_its_text_and_others_differ(engine: Engine, prompt: list[int]) -> None:
    def text(seed: int | None) -> str:
        return engine.generate(
            prompt, Sampling(temperature=1.5, top_k=0, top_p=1, min_p=0, seed=seed, max_tokens=20)
        ).text()

    assert text(7) == text(7)
    assert text(-1) == text(-1)
    assert len({text(seed) for seed in range(5)}) > 1
    assert len({text(None) for _ in range(5)}) > 1


def test_logit_bias_and_penalties_reach_the_samplers(engine: Engine, model: Model, prompt: list[int]) -> None:
    (token,) = model.vocab.tokenise(" the")
    bias: dict[str, Any] = {"temperature": 0.0, "max_tokens": 6, "logit_bias": ((token, 60.0),)}
    assert engine.generate(prompt, Sampling(**bias)).text() == " the" * 6
    for name in ("frequency_penalty", "presence_penalty", "repeat_penalty"):
        penalised = Sampling(**{**bias, name: 100.0})
        assert engine.generate(prompt, penalised).text().count(" the the") == 0
    with pytest.raises(InvalidInput, match=f"token {model.vocab.size} ") as caught:
        engine.generate(prompt, Sampling(logit_bias=((model.vocab.size, 1.0),))).text()
    assert caught.value.param == "logit_bias"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("top_p", 1.5),
        ("min_p", -0.1),
        ("repeat_penalty", 0.0),
        ("presence_penalty", float("inf")),
        ("max_tokens", -1),
        ("stop", ("",)),
        ("logit_bias", ((1, float("nan")),)),
    ],
)
def test_sampling_out_of_range_names_the_field(field: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        Sampling(**{field: value})
    assert caught.value.param == field


# ---- what is reused ----


def test_a_next_turn_evaluates_only_what_is_new(engine: Engine, endless: Sampling) -> None:
    first = engine.encode_prompt(ask("Name three fruits."))
    sampling = Sampling(temperature=0, max_tokens=10, logit_bias=endless.logit_bias)
    reply = engine.generate(first, sampling, cache_key="ann").text()
    turn = [*ask("Name three fruits."), Message(role="assistant", content=reply), *ask("And one more?")[1:]]
    second = engine.encode_prompt(turn)
    again = engine.generate(second, sampling, cache_key="ann")
    assert again.text() == engine.generate(second, sampling).text()
    assert len(first) <= again.usage.cached_tokens < len(second)


def test_nothing_is_reused_for_another_user_or_adapter_or_nobody(
    engine: Engine, write_lora: Callable[..., Path]
) -> None:
    prompt, lora = engine.encode_prompt(ask("What is my secret?")), write_lora("c.gguf", seed=2)

    def cached(cache_key: str, adapter: Path | None = None) -> int:
        generation = engine.generate(prompt, GREEDY, cache_key=cache_key, adapter=adapter)
        generation.text()
        return generation.usage.cached_tokens

    assert (cached("bob"), cached("bob")) == (0, len(prompt) - 1)
    assert (cached("cat"), cached("")) == (0, 0)
    assert cached("") == 0
    assert (cached("bob", lora), cached("bob", lora)) == (0, len(prompt) - 1)
    assert cached("bob") == len(prompt) - 1


# ---- many at once ----


def test_replies_of_many_users_and_adapters_at_once_are_each_their_own(
    engine: Engine, write_lora: Callable[..., Path]
) -> None:
    adapters = [None, *(write_lora(f"u{i}.gguf", seed=10 + i, strength=4.0) for i in range(3))]
    prompt = engine.encode_prompt(ask("Where were you born?"))
    alone = [engine.generate(prompt, GREEDY, adapter=adapter).text() for adapter in adapters]
    assert len(set(alone)) == 4
    running = [
        (i, engine.generate(prompt, GREEDY, adapter=adapters[i], cache_key=f"user {i}")) for i in [0, 1, 2, 3] * 6
    ]
    for i, generation in running:
        text = generation.text()
        # batches of another shape may tip a near tie, so a reply is told by how long it agrees with which
        assert common(text, alone[i]) == max(common(text, other) for other in alone) > 0


def test_a_short_request_is_not_kept_waiting_by_a_long_one_of_another_adapter(
    engine: Engine, write_lora: Callable[..., Path], prompt: list[int], endless: Sampling
) -> None:
    long = engine.generate(prompt, endless)
    next(iter(long))
    short = engine.generate(prompt, Sampling(temperature=0, max_tokens=3), adapter=write_lora("d.gguf"))
    short.text()
    assert long.finish_reason is None
    assert long.usage.completion_tokens < 500
    long.cancel()


def test_cancelling_stops_within_a_token_and_frees_the_slot(
    model_path: Path, prompt: list[int], endless: Sampling
) -> None:
    with Engine.open(model_path, EngineOptions(slots=1, threads=1)) as single:
        generation, waiting = single.generate(prompt, endless), single.generate(prompt, GREEDY)
        next(iter(generation))
        waiting.cancel()
        assert waiting.text() == ""
        generation.cancel()
        seen = generation.usage.completion_tokens
        generation.text()
        assert generation.usage.completion_tokens <= seen + 1
        assert generation.finish_reason is None
        assert single.generate(prompt, GREEDY).text()
        generation.cancel()  # after the end: nothing happens


def test_a_full_queue_says_so_and_empties(model_path: Path, prompt: list[int], endless: Sampling) -> None:
    with Engine.open(model_path, EngineOptions(slots=1, queue_limit=2, threads=1)) as single:
        running = single.generate(prompt, endless)
        next(iter(running))
        waiting = [single.generate(prompt, GREEDY) for _ in range(2)]
        with pytest.raises(EngineBusy, match="2 requests are waiting") as caught:
            single.generate(prompt, GREEDY)
        assert isinstance(caught.value, Busy)
        running.cancel()
        texts = [generation.text() for generation in waiting]
        assert texts[0] == texts[1] != ""


def test_it_is_safe_from_many_threads(engine: Engine, prompt: list[int]) -> None:
    texts: list[str] = []

    def work() -> None:
        for _ in range(3):
            engine.encode_prompt(ask("Hi"))
            texts.append(engine.generate(prompt, Sampling(temperature=0, max_tokens=3)).text())

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == 18
    assert all(texts)


# ---- adapters ----


def test_an_adapter_that_is_missing_or_damaged_is_refused_at_once(
    engine: Engine, write_lora: Callable[..., Path], prompt: list[int], tmp_path: Path
) -> None:
    good = write_lora("good.gguf").read_bytes()
    damaged = {
        "none.gguf": None,
        "empty.gguf": b"",
        "text.gguf": b"hello, this is text",
        "cut.gguf": good[: len(good) // 2],
        "header.gguf": good[:100],
        "kind.gguf": good.replace(b"adapter.type", b"adapter.tyqe"),
        # a string where llama.cpp takes a number for granted, which would abort the process
        "alpha.gguf": good.replace(b"adapter.lora.alpha\x06\x00\x00\x00", b"adapter.lora.alpha\x04\x00\x00\x00"),
    }
    for name, data in damaged.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(BadFile, match=name.replace(".", r"\.")) as caught:
            engine.generate(prompt, GREEDY, adapter=tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(BadFile, match="architecture is qwen3 and the model's llama"):
        engine.generate(prompt, GREEDY, adapter=write_lora("other.gguf", architecture="qwen3"))


def test_an_adapter_of_another_model_fails_its_own_request_only(
    engine: Engine, write_lora: Callable[..., Path], prompt: list[int]
) -> None:
    expected = engine.generate(prompt, GREEDY).text()
    wrong = engine.generate(prompt, GREEDY, adapter=write_lora("wide.gguf", width=96))
    right = engine.generate(prompt, GREEDY)
    with pytest.raises(BadFile, match="incorrect shape"):
        wrong.text()
    assert right.text() == expected


def test_an_adapter_that_computes_no_numbers_harms_nobody_else(
    engine: Engine, write_lora: Callable[..., Path], prompt: list[int], endless: Sampling
) -> None:
    sampling = Sampling(temperature=0, max_tokens=60, logit_bias=endless.logit_bias)
    expected = engine.generate(prompt, sampling).text()
    beside = [engine.generate(prompt, sampling) for _ in range(2)]
    nan = write_lora("nan.gguf", strength=float("nan"))
    broken = [engine.generate(prompt, GREEDY, adapter=nan) for _ in range(3)]
    huge = engine.generate(prompt, GREEDY, adapter=write_lora("huge.gguf", strength=1e30))
    for generation in [*broken, huge]:
        with pytest.raises(BadFile, match="computes no numbers"):
            generation.text()
    assert all(common(generation.text(), expected) > 0 for generation in beside)
    assert [engine.generate(prompt, sampling).text() for _ in range(8)] == [expected] * 8


def test_a_file_written_anew_is_another_adapter(
    engine: Engine, write_lora: Callable[..., Path], prompt: list[int]
) -> None:
    first = engine.generate(prompt, GREEDY, adapter=write_lora("e.gguf", seed=1, strength=3.0)).text()
    second = engine.generate(prompt, GREEDY, adapter=write_lora("e.gguf", seed=2, strength=3.0)).text()
    assert first != second


def test_a_dropped_adapter_is_loaded_again_when_asked_for(
    engine: Engine, write_lora: Callable[..., Path], prompt: list[int], endless: Sampling
) -> None:
    path = write_lora("f.gguf", strength=3.0)
    running = engine.generate(prompt, endless, adapter=path)
    next(iter(running))
    expected = engine.generate(prompt, GREEDY, adapter=path).text()
    engine.drop_adapter(path)  # in use: it goes when the running reply has ended
    assert engine.generate(prompt, GREEDY, adapter=path).text() == expected
    engine.drop_adapter(path)
    running.cancel()
    running.text()
    path.unlink()
    with pytest.raises(BadFile, match="No such file"):
        engine.generate(prompt, GREEDY, adapter=path)
    assert engine.generate(prompt, GREEDY).text()


def test_more_adapters_than_are_kept_take_turns(
    engine: Engine, write_lora: Callable[..., Path], prompt: list[int]
) -> None:
    paths = [write_lora(f"many{i}.gguf", seed=i, strength=3.0) for i in range(20)]
    short = Sampling(temperature=0, max_tokens=4)
    first = [engine.generate(prompt, short, adapter=path).text() for path in paths]
    assert [engine.generate(prompt, short, adapter=path).text() for path in paths] == first


# ---- the end ----


def test_closing_ends_every_reply_and_can_be_repeated(model_path: Path, prompt: list[int], endless: Sampling) -> None:
    engine = Engine.open(model_path, EngineOptions(slots=1, threads=1))
    replies: list[Generation] = [engine.generate(prompt, endless) for _ in range(2)]
    next(iter(replies[0]))
    engine.close()
    engine.close()
    for generation in replies:
        with pytest.raises(EngineClosed):
            generation.text()
    calls: list[Callable[[], object]] = [
        lambda: engine.generate(prompt, GREEDY),
        lambda: engine.encode_prompt(ask("Hi")),
        lambda: engine.count_tokens("Hi"),
    ]
    for call in calls:
        with pytest.raises(FamiliarError, match="closed"):
            call()


def test_what_is_far_too_long_is_refused_before_it_is_made_tokens(engine: Engine, monkeypatch: Any) -> None:
    """Whoever waits for the vocabulary meanwhile would wait for seconds."""
    limit, longest = engine.info.context_tokens, engine._model.vocab.longest_bytes
    assert len(engine.encode_text("word " * limit)) > limit, "what may be near the limit is made tokens"
    monkeypatch.setattr(type(engine._model.vocab), "tokenise", None)
    long = "word " * limit * longest
    refused = pytest.raises(InvalidInput, match=f"maximum context length is {limit} tokens.* at least ")
    with refused as caught:
        engine.encode_text(long)
    assert caught.value.param == "prompt"
    with refused as caught:
        engine.encode_prompt(ask(long))
    assert caught.value.param == "messages"


def test_choosing_the_first_token_is_the_models_time(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As llama.cpp's server counts it: what is left over is what the service takes."""
    ids = engine.encode_prompt(ask("Why is the sky blue?"))
    choose = Sampler.sample

    def slowly(self: Sampler, context: Context, row: int) -> int:
        time.sleep(0.05)
        return choose(self, context, row)

    monkeypatch.setattr(Sampler, "sample", slowly)
    generation = engine.generate(ids, replace(GREEDY, max_tokens=1))
    generation.text()
    assert generation.timing.prompt_ms >= 50
    assert generation.timing.predicted_ms < 50
