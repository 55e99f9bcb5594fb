"""Adapters in memory: which go first, when they may, and what goes with them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from familiar.daemon.adapter_cache import AdapterCache, AdapterKey
from familiar.daemon.engine import Sampling
from familiar.daemon.llama import Adapter, Context, Model
from tests.daemon.scheduling.bench import Bench, entries, prompt


def test_the_longest_unused_adapter_goes_first_by_count_and_by_bytes_but_none_in_use(
    model: Model, write_lora: Callable[..., Path]
) -> None:
    context = Context(model, context_tokens=256, threads=1)
    keys = [AdapterKey.of(write_lora(f"{i}.gguf", seed=i)) for i in range(5)]
    size = keys[0].size_bytes
    for limits in ({"kept": 3}, {"kept_bytes": 3 * size + 1}):
        cache = AdapterCache(model, context, **limits)
        adapters = [cache.get(key) for key in keys[:3]]
        assert cache.get(keys[0]) is adapters[0]  # now the most recently used
        context.set_adapter(adapters[1])
        cache.get(keys[3])  # takes the place of the one that is set on the context
        assert [key in cache for key in keys] == [True, False, True, True, False]
        cache.get(keys[4], in_use=keys[:4])  # all others are in use: one more than is kept
        assert [key in cache for key in keys] == [True, False, True, True, True]
        assert (len(cache), cache.bytes) == (4, 4 * size)
        cache.get(keys[4], in_use=[keys[0]])
        assert [key in cache for key in keys] == [True, False, False, True, True]
        for key in keys:
            cache.drop(key.path)
        assert set(cache.sweep([keys[3]])) == {keys[0], keys[4]}
        assert cache.sweep([]) == [keys[3]]
        assert len(cache) == 0
    context.close()


def test_a_dropped_adapter_goes_with_the_last_reply_that_uses_it_and_so_does_what_it_computed(
    bench: Callable[..., Bench], model: Model, write_lora: Callable[..., Path], sampling: Callable[..., Sampling]
) -> None:
    table, lora, kept = bench(), write_lora("a.gguf"), write_lora("b.gguf")
    table.reply(prompt(model, 100, start=1), sampling(2), adapter=lora, user="you")
    table.reply(prompt(model, 100, start=1), sampling(2), adapter=kept, user="you")
    running = table.ask(prompt(model, 100), sampling(6), adapter=lora, user="me")
    table.step(2)
    table.scheduler.drop_adapter(lora)
    table.step(2)
    assert table.scheduler.adapters_loaded == 2
    table.finish()
    assert len(entries(running)) == 6
    assert table.scheduler.adapters_loaded == 1  # at the end of the step that ended the reply
    for user, start, adapter, cached in (("me", 0, lora, 0), ("you", 1, lora, 0), ("you", 1, kept, 99)):
        again = table.ask(prompt(model, 100, start=start), sampling(2), adapter=adapter, user=user)
        table.finish()
        assert again.cached_tokens == cached
    table.scheduler.drop_adapter(lora)
    table.step()  # with nothing to evaluate
    assert table.scheduler.adapters_loaded == 1
    # what was computed under one that has left the memory before goes too
    table.scheduler._adapters._kept = 1
    for adapter in (lora, kept):
        table.reply(prompt(model, 100, start=2), sampling(2), adapter=adapter, user="me")
    assert table.scheduler.adapters_loaded == 1
    table.scheduler.drop_adapter(lora)
    last = table.ask(prompt(model, 100, start=2), sampling(2), adapter=lora, user="me")
    table.finish()
    assert last.cached_tokens == 0


def test_a_hundred_adapters_are_resident_each_with_its_own_reply(
    bench: Callable[..., Bench],
    model: Model,
    write_lora: Callable[..., Path],
    sampling: Callable[..., Sampling],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    different = [write_lora(f"{i}.gguf", seed=i, strength=4.0) for i in range(5)]
    paths = [Path(shutil.copyfile(different[i % 5], tmp_path / f"copy{i}.gguf")) for i in range(100)]
    loads: list[Path] = []
    load = Model.load_adapter

    def noting(self: Model, path: Path) -> Adapter:
        loads.append(path)
        return load(self, path)

    monkeypatch.setattr(Model, "load_adapter", noting)
    table = bench()
    replies = []
    for _ in range(2):
        asked = [table.ask(prompt(model, 10), sampling(4), adapter=path, user="me") for path in paths]
        table.finish()
        replies.append([[entry.token for entry in entries(each)] for each in asked])
        assert table.scheduler.adapters_loaded == 100
    assert len(loads) == 100
    assert replies[0] == replies[1]
    assert replies[0][:5] * 20 == replies[0]
    assert len({tuple(reply) for reply in replies[0]}) == 5
