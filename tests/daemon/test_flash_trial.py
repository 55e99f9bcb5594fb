"""Whether flash attention is faster here: a real trial, what is kept of it, and who asks."""

from pathlib import Path
from typing import Any

import psutil
import pytest

from familiar.adapters.protocols import greedy
from familiar.daemon import flash_trial, json_file, llama, server, settings
from familiar.daemon.llama import misfit
from familiar.daemon.oracle import Oracle
from familiar.daemon.settings import Settings
from familiar.memory.types import Message

fits_processor = pytest.mark.skipif(bool(misfit()), reason=f"llama.cpp was built for a processor with {misfit()}")


def chosen(data_dir: Path, **flags: object) -> Settings:
    return settings.load({"data_dir": data_dir, "gpu_layers": 0, **flags}, {})


def kept(data_dir: Path) -> Any:
    return json_file.read(data_dir / flash_trial.KEPT)


@pytest.fixture
def fitting(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where llama.cpp was built for this processor, wherever the tests run; nothing may compute with the model."""
    monkeypatch.setattr(llama, "processor_flags", lambda: None)


@pytest.mark.parametrize(
    ("gains", "worth"),
    [
        ((1.0, 1.2), True),
        ((1.2, 1.0), True),
        ((0.95, 1.4), True),
        ((1.0, 1.05), False),  # no more than a trial errs
        ((0.85, 1.4), False),
        ((1.0, 0.6), False),
    ],
)
def test_a_clear_gain_of_either_is_wanted_and_no_clear_loss(gains: tuple[float, ...], worth: bool) -> None:
    assert flash_trial.worth_it(gains) is worth


@fits_processor
def test_a_trial_gives_figures_and_leaves_no_threads(model_path: Path) -> None:
    before = psutil.Process().num_threads()
    gains = flash_trial.gains(model_path, "f16")
    assert len(gains) == 2
    assert all(0.02 < gain < 50 for gain in gains)
    assert psutil.Process().num_threads() == before


@pytest.mark.usefixtures("fitting")
@pytest.mark.parametrize(("gains", "found"), [([1.0, 1.3], "on"), ([1.0, 1.0], "off")])
def test_what_was_found_is_kept_and_not_sought_again(
    gains: list[float], found: str, model_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flash_trial, "gains", lambda *_: gains)
    assert flash_trial.settled(chosen(data_dir), model_path).flash_attention == found
    assert list(kept(data_dir).values()) == [found]
    monkeypatch.setattr(flash_trial, "gains", lambda *_: pytest.fail("it was known"))
    assert flash_trial.settled(chosen(data_dir, threads=1, slots=2), model_path).flash_attention == found
    # Of another cache, processor, build or model it says nothing:
    monkeypatch.setattr(flash_trial, "gains", lambda *_: [2.0, 2.0])
    assert flash_trial.settled(chosen(data_dir, kv_type="bf16"), model_path).flash_attention == "on"
    for name in ("processor_name", "library"):
        monkeypatch.setattr(flash_trial, name, lambda: "another")
        assert flash_trial.settled(chosen(data_dir), model_path).flash_attention == "on"
    other = data_dir / "other.gguf"
    other.write_bytes(model_path.read_bytes() + b"0")
    assert flash_trial.settled(chosen(data_dir), other).flash_attention == "on"
    assert sorted(kept(data_dir).values()) == sorted([found, *["on"] * 4])


@pytest.mark.usefixtures("fitting")
def test_the_first_of_two_processes_decides(model_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow_trial(*_: object) -> list[float]:
        monkeypatch.setattr(flash_trial, "gains", lambda *_: [1.0, 1.0])
        assert flash_trial.settled(chosen(data_dir), model_path).flash_attention == "off"
        return [2.0, 2.0]

    monkeypatch.setattr(flash_trial, "gains", slow_trial)
    assert flash_trial.settled(chosen(data_dir), model_path).flash_attention == "off"


@pytest.mark.usefixtures("fitting")
@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', "{"])
def test_a_file_that_is_not_ours_is_written_anew(
    text: str, model_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data_dir / flash_trial.KEPT).write_text(text)
    monkeypatch.setattr(flash_trial, "gains", lambda *_: [1.0, 1.3])
    assert flash_trial.settled(chosen(data_dir), model_path).flash_attention == "on"
    assert list(kept(data_dir).values()) == ["on"]


@pytest.mark.usefixtures("fitting")
def test_nothing_is_tried_where_there_is_nothing_to_choose(
    model_path: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flash_trial, "gains", lambda *_: pytest.fail("it was tried"))
    for said in ("on", "off"):
        assert flash_trial.settled(chosen(data_dir, flash_attention=said), model_path).flash_attention == said
    assert flash_trial.settled(chosen(data_dir, kv_type="q8_0"), model_path).flash_attention == "on"
    assert flash_trial.settled(chosen(data_dir), tmp_path / "none.gguf").flash_attention == "auto"
    monkeypatch.setattr(flash_trial, "FLASH_PARAMETERS", 1000)
    assert flash_trial.settled(chosen(data_dir), model_path).flash_attention == "auto"
    monkeypatch.setattr(flash_trial, "FLASH_PARAMETERS", 1 << 40)
    monkeypatch.setattr(flash_trial, "misfit", lambda: ["AMX_INT8"])
    assert flash_trial.settled(chosen(data_dir), model_path).flash_attention == "auto"
    assert kept(data_dir) is None


@pytest.mark.usefixtures("fitting")
def test_what_cannot_be_tried_or_kept_is_left_to_the_models_size(
    model_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> list[float]:
        raise RuntimeError("llama_decode failed")

    monkeypatch.setattr(flash_trial, "gains", fails)
    assert flash_trial.settled(chosen(data_dir), model_path).flash_attention == "auto"
    monkeypatch.setattr(flash_trial, "gains", lambda *_: [1.0, 1.3])
    (data_dir / flash_trial.KEPT).mkdir()  # so that no file can be put there
    # Kept nowhere, the next process might find something else:
    assert flash_trial.settled(chosen(data_dir), model_path).flash_attention == "auto"


@fits_processor
@pytest.mark.parametrize("gains", [[1.0, 1.3], [1.0, 1.0]], ids=["on", "off"])
def test_service_scorer_and_sampler_are_of_one_mind(
    gains: list[float], model_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    context = llama.Context.__init__

    def note(self: Any, *args: Any, **named: Any) -> None:
        made.append(named["flash_attention"])
        context(self, *args, **named)

    monkeypatch.setattr(flash_trial, "gains", lambda *_: gains)
    monkeypatch.setattr(llama.Context, "__init__", note)
    given = chosen(data_dir, threads=1)
    found = "on" if flash_trial.worth_it(gains) else "off"
    with server._opened(given, model_path, None, "token") as parts:
        assert parts.engine.info.flash_attention == found
    with Oracle.open(model_path, threads=1, flash=flash_trial.settled(given, model_path).flash_attention) as oracle:
        oracle.sample(None, [[Message(role="user", content="Hi")]], greedy(1))
    assert made == [found] * 3
