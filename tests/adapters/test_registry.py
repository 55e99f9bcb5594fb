"""Promotion is all or nothing, a damaged version is told, and rollback is one step."""

import errno
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from familiar.adapters import registry
from familiar.adapters.gate import Check, Report
from familiar.memory import consolidated, lineage
from familiar.memory.errors import BadFile, InvalidInput, LearningFailed, NoSpace, NotFound
from familiar.memory.store import Store
from familiar.memory.types import AdapterVersion, Exchange, Feedback, LearningRun, Memory, asked

PASSED = Report(True, (Check("held_out", 0.2, 0.0, True, "On 4 held-out rows."),))


@pytest.fixture
def store(data_dir: Path) -> Iterator[Store]:
    with Store.open(data_dir / "familiar.db") as opened:
        yield opened


@pytest.fixture
def run(store: Store) -> LearningRun:
    run = LearningRun("run-1", store.default_user(), 1.0, "running", {"rank": 16}, "fingerprint")
    store.add_run(run)
    for number in (1, 2):
        exchange = Exchange(f"chatcmpl-{number}", run.user_id, 1.0, "familiar", asked("What is tea?"), "Coffee.")
        store.add_exchange(exchange)
        said = Feedback(f"fb-{number}", run.user_id, 1.0, "correction", exchange.id, f"Leaf number {number}, dried.")
        example = Memory(f"mem-{number}", run.user_id, 1.0, "example", said.text or "", f"Tea {number}?", said.id)
        store.add_feedback(said, [example])
    return run


@pytest.fixture
def candidate(tmp_path: Path) -> Path:
    folder = tmp_path / "candidate"
    folder.mkdir()
    for name in (registry.GGUF, *registry.PEFT_FILES):
        (folder / name).write_text(f"the bytes of {name}")
    return folder


def promote(
    store: Store, data_dir: Path, run: LearningRun, candidate: Path, base_sha256: str = "b" * 64
) -> AdapterVersion:
    return registry.promote(
        store, data_dir, run, candidate, base_sha256=base_sha256, feedback_ids=["fb-1", "fb-2"], report=PASSED, now=5.0
    )


def test_a_promoted_version_is_whole_current_and_has_its_lineage(
    store: Store, data_dir: Path, run: LearningRun, candidate: Path
) -> None:
    first = promote(store, data_dir, run, candidate)
    (candidate / registry.GGUF).write_text("better")
    second = promote(store, data_dir, run, candidate)
    assert (first.number, first.parent, second.number, second.parent) == (1, None, 2, 1)
    assert store.current_version(run.user_id) == second == store.version(run.user_id, 2)
    assert registry.verify(data_dir, second).read_text() == "better"
    assert registry.verify(data_dir, first).read_text() == f"the bytes of {registry.GGUF}"
    manifest = json.loads((data_dir / second.folder / "manifest.json").read_text())
    assert manifest["feedback_ids"] == ["fb-1", "fb-2"]
    assert manifest["recipe"] == {"rank": 16}
    assert manifest["report"] == PASSED.to_dict() == second.report
    assert (candidate / registry.GGUF).exists(), "the candidate is left as it was"
    ended = store.run(run.user_id, run.id)
    assert (ended.state, ended.ended_at, ended.version, ended.report) == ("promoted", 5.0, 2, {"gate": second.report})


@pytest.mark.parametrize("kind", ["correction", "deed", "rule"])
def test_a_version_that_was_taught_what_was_forgotten_meanwhile_is_refused(
    store: Store, data_dir: Path, run: LearningRun, candidate: Path, kind: str
) -> None:
    """Also where a blank row is left of it, and where it never had a signal."""
    served = promote(store, data_dir, run, candidate)
    store.update_run(run)
    rule = store.put_memory(Memory("mem-3", run.user_id, 1.0, "rule", "Never mention the war."), 1.0)
    store.add_feedback(
        Feedback("fb-3", run.user_id, 1.0, "rule", text="Speak of the weather.", key="deed-3"),
        [Memory("mem-4", run.user_id, 1.0, "rule", "Speak of the weather.", feedback_id="fb-3")],
    )
    store.forget(run.user_id, [{"correction": "mem-2", "deed": "mem-4", "rule": rule.id}[kind]])
    with pytest.raises(LearningFailed, match="forgotten meanwhile"):
        registry.promote(
            store,
            data_dir,
            run,
            candidate,
            base_sha256="b" * 64,
            feedback_ids=["fb-1", {"correction": "fb-2", "deed": "fb-3", "rule": rule.id}[kind]],
            report=PASSED,
            now=6.0,
        )
    assert store.current_version(run.user_id) == served
    assert store.versions(run.user_id) == [served]
    assert [path.name for path in (data_dir / "adapters" / "1").iterdir()] == ["v1"], "its weights are gone"
    assert store.run(run.user_id, run.id).state == "running"


def test_what_a_version_follows_untold_is_kept_with_it_or_nothing_is(
    store: Store, data_dir: Path, run: LearningRun, candidate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = store.put_memory(Memory("mem-3", run.user_id, 1.0, "rule", "Never mention the war."), 1.0)

    def again() -> AdapterVersion:
        return registry.promote(
            store,
            data_dir,
            run,
            candidate,
            base_sha256="b" * 64,
            feedback_ids=["fb-1", rule.id],
            report=PASSED,
            now=5.0,
            untold=[rule],
        )

    for step in (lineage.insert_version, consolidated.keep, lineage.replace_run):
        with monkeypatch.context() as patched:
            _then_interrupt(patched, step)
            with pytest.raises(KeyboardInterrupt):
                again()
        assert store.versions(run.user_id) == []
        assert store.current_version(run.user_id) is None
        assert store.run(run.user_id, run.id) == run
    assert store.consolidated(run.user_id, again().number) == {rule.id}


def _then_interrupt(monkeypatch: pytest.MonkeyPatch, step: Callable[..., None]) -> None:
    def cut(*args: object, **kwargs: object) -> None:
        step(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules[step.__module__], step.__name__, cut)


def test_what_failed_the_gate_or_is_incomplete_is_not_promoted(
    store: Store, data_dir: Path, run: LearningRun, candidate: Path
) -> None:
    with pytest.raises(InvalidInput, match="passed the gate"):
        registry.promote(
            store,
            data_dir,
            run,
            candidate,
            base_sha256="",
            feedback_ids=[],
            report=replace(PASSED, passed=False),
            now=5.0,
        )
    (candidate / registry.PEFT_FILES[0]).unlink()
    with pytest.raises(BadFile, match="incomplete"):
        promote(store, data_dir, run, candidate)
    assert store.versions(run.user_id) == []
    assert not (data_dir / "adapters").exists()


@pytest.mark.parametrize("name", [registry.GGUF, *registry.PEFT_FILES])
def test_damage_is_told(store: Store, data_dir: Path, run: LearningRun, candidate: Path, name: str) -> None:
    version = promote(store, data_dir, run, candidate)
    path = data_dir / version.folder / name
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadFile, match=f"{name} is corrupt"):
        registry.verify(data_dir, version)
    path.unlink()
    with pytest.raises(BadFile, match=f"{name} is missing"):
        registry.verify(data_dir, version)
    shutil.rmtree(path.parent)
    with pytest.raises(BadFile, match="incomplete"):
        registry.verify(data_dir, version)


@pytest.mark.parametrize("name", [registry.GGUF, *registry.PEFT_FILES])
def test_a_folder_that_never_had_a_file_is_refused(
    store: Store, data_dir: Path, run: LearningRun, candidate: Path, name: str
) -> None:
    version = promote(store, data_dir, run, candidate)
    path = data_dir / version.folder / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["sha256"][name]
    path.write_text(json.dumps(manifest))
    with pytest.raises(BadFile, match="not adapter version 1 as it was promoted"):
        registry.verify(data_dir, version)


def test_a_whole_folder_of_another_version_is_refused(
    store: Store, data_dir: Path, run: LearningRun, candidate: Path
) -> None:
    version = promote(store, data_dir, run, candidate)
    with pytest.raises(BadFile, match="not adapter version 1 as it was promoted"):
        registry.verify(data_dir, replace(version, gguf_sha256="0" * 64))


def test_rollback_goes_to_the_parent_then_to_the_base(
    store: Store, data_dir: Path, run: LearningRun, candidate: Path
) -> None:
    promote(store, data_dir, run, candidate)
    promote(store, data_dir, run, candidate)
    assert registry.rollback(store, run.user_id) == (2, 1)
    assert registry.rollback(store, run.user_id) == (1, None)
    assert store.current_version(run.user_id) is None
    with pytest.raises(NotFound, match="base model is being served"):
        registry.rollback(store, run.user_id)
    assert promote(store, data_dir, run, candidate).number == 3, "numbers are not used twice"


def test_each_base_model_serves_what_was_current_on_it(
    store: Store, data_dir: Path, run: LearningRun, candidate: Path
) -> None:
    def served(base: str) -> int | None:
        version = registry.served(store, run.user_id, base)
        return version.number if version else None

    assert served("a") is None
    for base in "aabab":
        promote(store, data_dir, run, candidate, base)
    assert (served("a"), served("b"), served("c")) == (4, 5, None)
    assert registry.served(store, run.user_id) == store.version(run.user_id, 5)
    store.set_current(run.user_id, 4)
    assert (served("a"), served("b")) == (4, 3)
    assert registry.rollback(store, run.user_id, "a") == (4, 2)
    assert (served("a"), served("b")) == (2, 3)
    assert registry.rollback(store, run.user_id, "a") == (2, 1)
    assert registry.rollback(store, run.user_id, "a") == (1, None)
    with pytest.raises(NotFound, match="base model is being served"):
        registry.rollback(store, run.user_id, "a")


def test_a_full_disk_leaves_everything_as_it_was(
    store: Store, data_dir: Path, run: LearningRun, candidate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = promote(store, data_dir, run, candidate)

    def fill(source: Path, target: Path) -> None:
        Path(target).write_bytes(b"the first part")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", fill)
        with pytest.raises(NoSpace, match="free some space"):
            promote(store, data_dir, run, candidate)
    assert [path.name for path in (data_dir / "adapters" / "1").iterdir()] == ["v1"]
    assert store.current_version(run.user_id) == first
    assert promote(store, data_dir, run, candidate).number == 2


KILLED_PROMOTION = """
import os, shutil, signal, sys
from pathlib import Path
from familiar.adapters import folders, registry
from familiar.adapters.gate import Report
from familiar.memory import lineage
from familiar.memory.store import Store

data_dir, candidate, moment = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]

def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def then_kill(function):
    def call(*args, **kwargs):
        function(*args, **kwargs)
        kill()
    return call

if moment == "while copying":
    shutil.copyfile = then_kill(shutil.copyfile)
elif moment == "before the rename":
    folders.os.replace = kill
elif moment == "after the rename":
    folders.os.replace = then_kill(os.replace)
elif moment == "before the commit":
    lineage.replace_run = then_kill(lineage.replace_run)
elif moment == "after the row":
    Store.promote = then_kill(Store.promote)
with Store.open(data_dir / "familiar.db") as store:
    run, report = store.runs(store.default_user())[0], Report(True, ())
    registry.promote(store, data_dir, run, candidate, base_sha256="b", feedback_ids=[], report=report, now=6.0)
"""


@pytest.mark.parametrize(
    ("moment", "served"),
    [
        ("while copying", 1),
        ("before the rename", 1),
        ("after the rename", 1),
        ("before the commit", 1),
        ("after the row", 2),
    ],
)
def test_a_kill_at_any_moment_serves_the_old_version_or_the_new_one(
    store: Store, data_dir: Path, run: LearningRun, candidate: Path, moment: str, served: int
) -> None:
    promote(store, data_dir, run, candidate)
    store.update_run(run)
    arguments = [sys.executable, "-c", KILLED_PROMOTION, str(data_dir), str(candidate), moment]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
    current = store.current_version(run.user_id)
    assert current
    assert current.number == served
    assert store.run(run.user_id, run.id).state == ("running" if served == 1 else "promoted")
    registry.verify(data_dir, current)
    following = promote(store, data_dir, run, candidate)
    assert following.number == served + 1
    registry.verify(data_dir, following)
    names = {path.name for path in (data_dir / "adapters" / "1").iterdir()}
    assert names == {f"v{number}" for number in range(1, served + 2)}, "leftovers are gone"
