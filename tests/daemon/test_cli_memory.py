"""``familiar memory`` and ``familiar rule`` on a real store, as they read in the terminal and as scripts read them."""

import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from familiar.daemon import cli
from familiar.memory.store import Store
from familiar.memory.types import AdapterVersion, Exchange, Feedback, LearningRun, Memory, Message, Used

ME = 1


@dataclass(frozen=True)
class Said:
    """What a command printed, and how it ended."""

    out: str
    err: str
    code: int

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Said]


@pytest.fixture
def run(data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``run("memory", "list", typed="y\\n")``: a command in this process, on an empty store at first."""
    monkeypatch.setenv("XDG_CONFIG_HOME", "/dev/null")
    for name in ("FAMILIAR_USER", "FAMILIAR_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)

    def command(*arguments: str, typed: str = "") -> Said:
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        with pytest.raises(SystemExit) as ended:
            cli.main([*arguments, "--data-dir", str(data_dir)])
        printed = capsys.readouterr()
        return Said(printed.out, printed.err, int(ended.value.code or 0))

    return command


def add(store: Store, id: str, text: str, at: float = 1.0, **fields: Any) -> Memory:
    return store.put_memory(Memory(id, ME, at, fields.pop("kind", "rule"), text, **fields), at)


def refused(said: Said, code: int = 1) -> str:
    """The one line that a mistake prints."""
    assert said.code == code, (said.out, said.err)
    lines = said.err.splitlines()
    assert len(lines) == 1, said.err
    assert lines[0].startswith("familiar: ")
    return lines[0]


def test_a_rule_is_remembered_listed_and_forgotten(run: Run, store: Store) -> None:
    assert "Nothing is remembered" in run("memory", "list").out
    assert run("rule", "Use metric units.").out == "Remembered: Use metric units.\n"
    head, line = run("memory", "list").lines
    short, day, kind, applies, state, uses, *text = line.split()
    assert head.split() == ["id", "stated", "kind", "applies", "state", "uses", "text"]
    assert (kind, applies, state, uses) == ("rule", "always", "active", "0")
    assert day == time.strftime("%Y-%m-%d")
    assert " ".join(text) == "Use metric units."
    (memory,) = store.memories(ME)
    assert (memory.source, store.feedback_rows(ME)[0][0].source) == ("cli", "cli")
    assert memory.id.startswith(short)
    assert run("memory", "forget", short).out == "Forgotten: Use metric units.\n"
    assert store.memories(ME) == []
    assert short in refused(run("memory", "forget", short))


def test_a_rule_may_be_for_some_requests_or_one_conversation(run: Run, store: Store) -> None:
    run("rule", "Write short emails.", "--scope", "related")
    hello = (Message(role="user", content="Hello"),)
    conversation = store.add_exchange(Exchange("chatcmpl-1", ME, 1.0, "familiar", hello, "Hi."))
    run("rule", "Be formal.", "--scope", "conversation", "--conversation", "last")
    scopes = {memory.text: (memory.scope, memory.conversation_id) for memory in store.memories(ME)}
    assert scopes == {"Write short emails.": ("related", None), "Be formal.": ("conversation", conversation)}
    said = refused(run("rule", "Be brief.", "--scope", "conversation"), code=2)
    assert "--conversation" in said
    assert "conv-0" in refused(run("rule", "Be brief.", "--conversation", "conv-0"))


def test_what_is_added_has_the_kind_and_scope_that_its_words_have(run: Run, store: Store) -> None:
    run("memory", "add", "My sister is called Ann.")
    run("memory", "add", "Seven minutes.", "--prompt", "How long do eggs take?", "--pin")
    run("memory", "add", "Ghent", "--kind", "fact", "--scope", "always")
    kinds = {memory.text: (memory.kind, memory.scope, memory.pinned, memory.source) for memory in store.memories(ME)}
    assert kinds == {
        "My sister is called Ann.": ("fact", "related", False, "cli"),
        "Seven minutes.": ("example", "related", True, "cli"),
        "Ghent": ("fact", "always", False, "cli"),
    }
    assert "empty" in refused(run("memory", "add", "  "))
    assert "32,000" in refused(run("memory", "add", "x" * 32_001))
    assert "prompt" in refused(run("memory", "add", "a", "--kind", "example"))
    assert "'sometimes'" in refused(run("memory", "add", "a", "--scope", "sometimes"), code=2)


def test_a_list_is_aligned_and_limited(run: Run, store: Store) -> None:
    add(store, "mem-aaaa1", "Use metric units.", 1e9, pinned=True)
    add(store, "mem-aaaa2", "Ann is a nurse.", 2e9, kind="fact", scope="related")
    add(store, "mem-bbbb", "Call me\nAl. " + "x" * 200, 3e9, state="evicted", ended_at=3e9)
    head, first, second = run("memory", "list").lines
    assert first.startswith("mem-aaaa1  2001-09-0")
    assert second.startswith("mem-aaaa2  2033-05-1")
    assert first.index("Use metric") == second.index("Ann is") == head.index("text")
    assert " pinned " in first
    assert [line.split()[0] for line in run("memory", "list", "--kind", "fact").lines[1:]] == ["mem-aaaa2"]
    (evicted,) = run("memory", "list", "--state", "evicted").lines[1:]
    assert evicted.endswith("…")
    assert "Call me Al. xxx" in evicted
    assert len(run("memory", "list", "--all").lines) == 4
    assert "--all" in run("memory", "list", "--state", "superseded").out
    listed = run("memory", "list", "--all", "--json").json
    assert [memory["id"] for memory in listed["data"]] == ["mem-aaaa1", "mem-aaaa2", "mem-bbbb"]
    assert listed["data"][2]["text"].startswith("Call me\nAl.")


def test_a_search_says_how_well_each_was_found(run: Run, store: Store) -> None:
    add(store, "mem-1", "The bicycle shop opens at nine.", kind="fact")
    add(store, "mem-2", "My bicycle is red.", kind="fact")
    add(store, "mem-3", "Use metric units.")
    head, best, *_ = run("memory", "search", "bicycle shop").lines
    assert head.split()[:2] == ["id", "score"]
    assert best.split()[0] == "mem-1"
    assert re.fullmatch(r"-?\d+\.\d\d", best.split()[1])
    found = run("memory", "search", "bicycle shop", "--json", "--limit", "1").json["data"]
    assert [memory["id"] for memory in found] == ["mem-1"]
    assert "score" in found[0]
    assert run("memory", "search", "volcano").lines == ["Nothing that is remembered has to do with it."]


def test_an_id_may_be_begun_and_the_last_one_named(run: Run, store: Store) -> None:
    add(store, "mem-abc1", "Use metric units.", 1.0)
    add(store, "mem-abc1-rule", "Ann is a nurse.", 2.0)
    add(store, "mem-abd2", "Like jazz.", 3.0)
    shown = {wanted: run("memory", "show", wanted).lines[0] for wanted in ("mem-abc1", "abd", "mem-abc1-", "last")}
    assert shown == {"mem-abc1": "mem-abc1", "abd": "mem-abd2", "mem-abc1-": "mem-abc1-rule", "last": "mem-abd2"}
    said = refused(run("memory", "show", "ab"))
    assert "mem-abc1, mem-abc1-rule, mem-abd2" in said
    assert "memory list --all" in refused(run("memory", "show", "zz"))
    assert "memory list --all" in refused(run("memory", "show", ""))


def test_a_memory_is_shown_with_all_that_is_known_of_it(run: Run, store: Store) -> None:
    messages = (Message(role="user", content="How long do eggs take?"),)
    store.add_exchange(Exchange("chatcmpl-1", ME, 1e9, "familiar", messages, "An hour."))
    correction = Feedback("fb-1", ME, 1e9, "correction", "chatcmpl-1", text="Seven minutes.")
    example = Memory("mem-1", ME, 1e9, "example", "Seven minutes.", "How long do eggs take?", "fb-1", scope="related")
    store.add_feedback(correction, [example])
    used = (Used("mem-1", "same prompt", 1.0),)
    store.add_exchange(Exchange("chatcmpl-2", ME, 2e9, "familiar", messages, "Seven minutes.", used=used))
    out = run("memory", "show", "mem-1").out
    assert re.search(r"applies\s+to requests that it has to do with", out)
    assert re.search(r"from\s+api, as fb-1, about the reply chatcmpl-1", out)
    assert re.search(r"used\s+1 time, last 2033-05-18", out)
    assert re.search(r"chatcmpl-2\s+answers the same request \(score 1.00\)\s+How long do eggs take\?", out)
    shown = run("memory", "show", "mem-1", "--json").json
    assert (shown["completion_id"], shown["shown_in"][0]["completion_id"]) == ("chatcmpl-1", "chatcmpl-2")


def test_a_memory_is_edited_in_the_line_or_an_editor(run: Run, store: Store, monkeypatch: Any, tmp_path: Path) -> None:
    add(store, "mem-1", "Use metric units.")
    assert run("memory", "edit", "last", "Use SI units.").out == "Changed: Use SI units.\n"
    assert run("memory", "edit", "last", "--scope", "related").code == 0
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i.bak s/SI/imperial/ "$1"\nsleep 0.01\ntouch "$1"\n', encoding="utf-8")
    editor.chmod(0o700)
    monkeypatch.setenv("VISUAL", str(editor))
    assert run("memory", "edit", "mem-1", "--editor").out == "Changed: Use imperial units.\n"
    memory = store.memory(ME, "mem-1")
    assert (memory.text, memory.scope) == ("Use imperial units.", "related")
    monkeypatch.setenv("VISUAL", "true")
    assert "not saved" in refused(run("memory", "edit", "mem-1", "--editor"))
    assert "Nothing is to change" in refused(run("memory", "edit", "mem-1"))
    assert "--editor" in refused(run("memory", "edit", "mem-1", "a", "--editor"), code=2)
    assert "empty" in refused(run("memory", "edit", "mem-1", " "))


def test_a_memory_is_pinned_and_brought_back(run: Run, store: Store) -> None:
    add(store, "mem-1", "Use metric units.", state="evicted", ended_at=2.0)
    assert run("memory", "pin", "mem-1").out == "Pinned: Use metric units.\n"
    assert store.memory(ME, "mem-1").pinned
    assert run("memory", "unpin", "mem-1").out == "Unpinned: Use metric units.\n"
    assert run("memory", "restore", "mem-1").out == "Restored: Use metric units.\n"
    assert (store.memory(ME, "mem-1").pinned, store.memory(ME, "mem-1").state) == (False, "active")


def test_the_history_shows_what_took_whose_place(run: Run, store: Store) -> None:
    add(store, "mem-new", "Call me Albert.", 2e9)
    add(store, "mem-old", "Call me Al.", 1e9, state="superseded", superseded_by="mem-new", ended_at=2e9)
    old, new = run("memory", "history", "mem-new").lines
    assert old.split()[0] == "2001-09-09"
    assert old.endswith("superseded  Call me Al.")
    assert new.startswith("* ")
    assert "superseded since 2033-05-18" in run("memory", "show", "mem-old").out


def test_several_are_forgotten_only_after_a_yes(run: Run, store: Store) -> None:
    for number, text in enumerate(("My boss likes short emails.", "Ann is my boss.", "Like jazz.")):
        add(store, f"mem-{number}", text, float(number))
    asked = run("memory", "forget", "mem-0", "mem-1", typed="n\n")
    assert "Nothing was forgotten." in refused(asked)
    assert "  Ann is my boss." in asked.lines
    assert "--yes" in refused(run("memory", "forget", "mem-0", "mem-1"))
    assert len(store.memories(ME)) == 3
    assert "mem-9" in refused(run("memory", "forget", "mem-0", "mem-9", "--yes"))
    assert len(store.memories(ME)) == 3
    assert "Forget these 2 memories?" in run("memory", "forget", "--matching", "the boss", typed="y\n").out
    assert [memory.text for memory in store.memories(ME)] == ["Like jazz."]
    assert 'holds every word of "volcano"' in run("memory", "forget", "--matching", "volcano").out
    run("memory", "forget", "--matching", "jazz")
    assert store.memories(ME) == []
    for arguments in ((), ("mem-1", "--matching", "x")):
        assert "--matching" in refused(run("memory", "forget", *arguments), code=2)


def test_why_says_what_a_reply_was_made_with(run: Run, store: Store) -> None:
    assert "There is no reply yet" in refused(run("memory", "why"))
    add(store, "mem-1", "Use metric units.")
    add(store, "mem-2", "Like jazz.")
    messages = (Message(role="user", content="How far is the moon?"),)
    used = (Used("mem-1", "always"), Used("mem-2", "words and meaning", 0.5))
    store.add_exchange(Exchange("chatcmpl-1", ME, 1e9, "familiar", messages, "Far.", 2, used))
    store.add_exchange(Exchange("chatcmpl-2", ME, 2e9, "familiar:base", messages, "Far."))
    store.forget(ME, ["mem-2"])
    (never,) = run("memory", "why").lines[1:]
    assert never == "familiar:base: the base model, shown no memories, as this model never is"
    head, made, *memories = run("memory", "why", "chatcmpl-1").lines
    assert head.endswith('"How far is the moon?"')
    assert made == "familiar: adapter v2 on the base model, shown 2 memories"
    assert memories == [
        "  mem-1: Use metric units.",
        "    applies always",
        "  mem-2: (forgotten)",
        "    shares words with the request and means something like it (score 0.50), forgotten since",
    ]
    assert run("memory", "why", "chatcmpl-1", "--json").json["memories"][1]["state"] == "forgotten"
    assert "chatcmpl-9" in refused(run("memory", "why", "chatcmpl-9"))


def test_what_the_adapter_follows_untold_is_named_with_its_version(run: Run, store: Store) -> None:
    rule, other = add(store, "mem-1", "Use metric units."), add(store, "mem-2", "Like jazz.")
    learned = LearningRun("run-1", ME, 1.0, "promoted", {}, "print")
    store.add_run(learned)
    for number in (1, 2):
        version = AdapterVersion(ME, number, 2.0, f"adapters/1/v{number}", None, "b", "g", learned.id, (), {})
        store.add_version(version, make_current=True)
    store.set_consolidated(ME, 2, [rule])
    messages = (Message(role="user", content="How far is the moon?"),)
    used = (Used(other.id, "always"), Used(rule.id, "learnt"))
    store.add_exchange(Exchange("chatcmpl-1", ME, 1e9, "familiar", messages, "Far.", 2, used))
    assert [line.split("  ")[4].strip() for line in run("memory", "list").lines[1:]] == ["in v2", "active"]
    assert re.search(
        r"state\s+in v2: this adapter version follows it without being shown it", run("memory", "show", "mem-1").out
    )
    assert "in v2" in run("memory", "history", "mem-1").out
    named = {"mem-1": 2, "mem-2": None}
    for command in (("memory", "list"), ("memory", "search", "metric units jazz"), ("rule", "list")):
        assert {each["id"]: each["consolidated_in"] for each in run(*command, "--json").json["data"]} == named
    _, made, *memories = run("memory", "why").lines
    assert made == "familiar: adapter v2 on the base model, shown one memory, following 1 untold"
    assert memories[2:] == ["  mem-1: Use metric units.", "    is followed by the adapter, not in the prompt"]
    store.set_current(ME, 1)
    assert "in v" not in run("memory", "list").out


def test_guesses_wait_for_a_yes_or_a_no(run: Run, store: Store) -> None:
    assert run("memory", "pending").lines == ["Nothing waits for an answer."]
    messages = (Message(role="user", content="Tell me of Ghent."),)
    store.add_exchange(Exchange("chatcmpl-1", ME, 1.0, "familiar", messages, "A long story."))
    for number, text in enumerate(("Keep replies short.", "Reply in Dutch.")):
        guess = Feedback(
            f"fb-{number}", ME, 1e9, "rebuttal", "chatcmpl-1", text, source="chat", trust="inferred", state="pending"
        )
        store.add_feedback(guess)
    _, first, second = run("memory", "pending").lines
    assert (first.split()[0], first.split()[3]) == ("fb-0", "rebuttal")
    assert second.endswith("Reply in Dutch.")
    assert [each["id"] for each in run("memory", "pending", "--json").json["data"]] == ["fb-0", "fb-1"]
    assert run("memory", "confirm", "fb-0").out == "Remembered: Keep replies short.\n"
    assert [memory.text for memory in store.memories(ME)] == ["Keep replies short."]
    assert run("memory", "dismiss", "last").out == "Dismissed.\n"
    assert store.pending(ME) == []
    assert store.feedback(ME, "fb-1").state == "dismissed"
    assert "memory pending" in refused(run("memory", "confirm", "fb-1"))


def test_each_user_has_memories_of_their_own(run: Run, store: Store) -> None:
    run("users", "add", "bob")
    run("rule", "Use metric units.", "--user", "bob")
    run("memory", "add", "Use imperial units.", "--user", "me")
    (bobs,) = store.memories(store.users.id_of("bob"))
    assert "Use metric units." in run("memory", "list", "--user", "bob").out
    assert "Use metric units." not in run("memory", "list", "--all").out
    for command in ("show", "pin", "restore", "forget", "history"):
        refused(run("memory", command, bobs.id))
    assert run("memory", "forget", "last", "--user", "bob").out == "Forgotten: Use metric units.\n"
    refused(run("memory", "list", "--user", "nobody"))


def test_a_memory_command_of_its_own_process(data_dir: Path) -> None:
    """Once for real: nothing heavy is missing, and the output is plain text."""
    command = [sys.executable, "-m", "familiar.daemon", "memory", "add", "Use metric units.", "--data-dir"]
    done = subprocess.run([*command, str(data_dir)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Remembered: Use metric units.\n", "")
