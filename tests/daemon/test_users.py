"""A household on one service: what each user sees over HTTP, and the commands that make, serve and remove them."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from openai import AuthenticationError, OpenAI

from familiar.adapters import registry
from familiar.adapters.gate import Report
from familiar.daemon import learner, local_service, service_record
from familiar.daemon.cli import cli
from familiar.daemon.client import Client
from familiar.daemon.learner_lock import learner_lock
from familiar.daemon.learner_steps import Stopped, Task
from familiar.daemon.learning import run_learner
from familiar.daemon.settings import Settings
from familiar.memory.errors import Busy, FamiliarError, InvalidInput, NotEnoughSignals, NotFound
from familiar.memory.store import Store
from familiar.memory.types import AdapterVersion, Exchange, Feedback, LearningRun, Message

NO_KEY_NEEDED = {"/health", "/openapi.json"}


def familiar(data_dir: Path, *arguments: str, **options: Any) -> Result:
    """Run a command on the data folder within this process."""
    env = {"FAMILIAR_USER": None, "XDG_CONFIG_HOME": os.devnull, **options.pop("env", {})}
    return CliRunner().invoke(cli, [*arguments, "--data-dir", str(data_dir)], env=env, **options)


def ok(result: Result) -> str:
    """What a command that worked printed on stdout."""
    if result.exception is not None:
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def made_key(result: Result) -> str:
    """The key that a command printed, which is all that it prints on stdout."""
    key = ok(result).removesuffix("\n")
    assert len(key) == 36
    assert key.startswith("fam-")
    return key


def failed(result: Result) -> FamiliarError:
    """The error that a command ended with."""
    assert isinstance(result.exception, FamiliarError), result.exception
    return result.exception


class Person:
    """One user of a running service, who sends their key."""

    def __init__(self, url: str, key: str | None) -> None:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self.http = httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False)

    def ask(self, text: str, model: str = "familiar") -> Any:
        body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 4, "temperature": 0}
        return self.http.post("/v1/chat/completions", json=body)

    def say(self, **fields: object) -> Any:
        return self.http.post("/v1/feedback", json=fields)

    def get(self, path: str) -> Any:
        response = self.http.get(path)
        assert response.status_code == 200, response.text
        return response.json()


@pytest.fixture
def household(service: Any, data_dir: Path) -> Any:
    """Make users by name while the service runs; ``me`` is there already."""
    people: list[Person] = []

    def make(*names: str) -> list[Person]:
        for name in names:
            command = ["key", "me"] if name == "me" else ["add", name]
            people.append(Person(service.url, made_key(familiar(data_dir, "users", *command))))
        return people

    yield make
    for person in people:
        person.http.close()


def version_of(service: Any, user: int, gguf: Path) -> AdapterVersion:
    """Make a version of a random adapter for a user, as the learner does of one that passed."""
    store, folder = service.parts.store, gguf.parent / f"candidate-{user}"
    run = LearningRun(f"run-{user}-{gguf.stem}", user, 1.0, "promoted", {}, "print")
    store.add_run(run)
    folder.mkdir(exist_ok=True)
    shutil.copyfile(gguf, folder / registry.GGUF)
    for name in registry.PEFT_FILES:
        (folder / name).write_bytes(b"{}")
    return registry.promote(
        store,
        service.parts.settings.data_dir,
        run,
        folder,
        base_sha256=service.parts.base_sha256(),
        feedback_ids=(),
        report=Report(passed=True, checks=()),
        now=2.0,
    )


# Over HTTP


def test_one_person_needs_no_key(service: Any) -> None:
    for headers in ({}, {"authorization": "Bearer sk-whatever"}, {"x-api-key": "unused"}):
        reply = service.http.post(
            "/v1/feedback", json={"rule": f"Keep to {len(headers)} {sorted(headers)}."}, headers=headers
        )
        assert reply.status_code == 200, reply.text
    assert len(service.http.get("/v1/memories").json()["data"]) == 3
    assert service.http.get("/v1/status").json()["user"] == "me"


def test_once_there_is_a_key_every_route_asks_for_one(service: Any, data_dir: Path) -> None:
    paths = service.http.get("/openapi.json").json()["paths"]
    assert {"/v1/chat/completions", "/v1/models", "/v1/memories", "/v1/adapters"} <= set(paths)
    key = made_key(familiar(data_dir, "users", "add", "bob"))
    for path, methods in paths.items():
        for method, operation in methods.items():
            place = re.sub(r"{\w+}", "unknown", path)
            json_body = {"model": "familiar", "messages": [], "prompt": "", "input": ""}
            given = json_body if method == "post" else None
            response = service.http.request(method, place, json=given)
            if path in NO_KEY_NEEDED:
                assert response.status_code == 200
                assert "security" not in operation
                continue
            assert response.status_code == 401, (method, path, response.text)
            assert response.json()["error"]["code"] == "invalid_api_key"
            assert operation["security"] == [{"ApiKey": []}, {}]
            known = service.http.request(method, place, json=given, headers={"x-api-key": key})
            assert known.status_code != 401, (method, path)


def test_the_openai_client_gets_its_own_error(service: Any, data_dir: Path) -> None:
    key = made_key(familiar(data_dir, "users", "add", "bob"))
    with pytest.raises(AuthenticationError) as refused:
        service.openai.models.list()
    assert refused.value.code == "invalid_api_key"
    with OpenAI(base_url=f"{service.url}/v1", api_key=key, max_retries=0) as bob:
        assert next(model.id for model in bob.models.list()) == "familiar"
    ok(familiar(data_dir, "users", "remove", "bob", "--yes"))
    assert next(model.id for model in service.openai.models.list()) == "familiar"  # nobody has a key now
    with (
        OpenAI(base_url=f"{service.url}/v1", api_key=key, max_retries=0) as gone,
        pytest.raises(AuthenticationError, match="is not known"),
    ):
        gone.models.list()


def test_each_user_sees_only_what_is_theirs(service: Any, household: Any) -> None:
    people = household("me", "bob", "ann")
    completions, memories = [], []
    for number, person in enumerate(people):
        asked = person.ask(f"What about rivers, number {number}?").json()
        completions.append(asked["id"])
        stored = person.say(completion_id=asked["id"], correction=f"Rivers answer {number}.", note=f"Rule {number}.")
        memories.append({memory["id"] for memory in stored.json()["memories"]})
    for number, person in enumerate(people):
        listed = person.get("/v1/memories")["data"]
        assert {memory["id"] for memory in listed} == memories[number]
        assert all(str(number) in memory["text"] for memory in listed)
        status = person.get("/v1/status")
        assert status["user"] == ("me", "bob", "ann")[number]
        assert status["counts"] == {"exchanges": 1, "feedback": 1, "memories": 2, "adapters": 0}
        again = person.ask("And what about the rivers?").json()
        assert set(again["familiar"]["memories"]) == memories[number]
        assert person.get(f"/v1/exchanges/{completions[number]}")["completion"] is not None
        other = (number + 1) % len(people)
        refusals = [
            person.http.get(f"/v1/exchanges/{completions[other]}"),
            person.http.delete(f"/v1/memories/{min(memories[other])}"),
            person.say(completion_id=completions[other], rating="good"),
            person.say(completion_id=completions[other], rule="Be mine."),
        ]
        unknown = [
            person.http.get("/v1/exchanges/chatcmpl-none"),
            person.http.delete("/v1/memories/mem-none"),
            person.say(completion_id="chatcmpl-none", rating="good"),
            person.say(completion_id="chatcmpl-none", rule="Be mine."),
        ]
        assert [response.status_code for response in refusals] == [404] * 4
        assert [without_ids(response) for response in refusals] == [without_ids(response) for response in unknown]
    for number, person in enumerate(people):
        assert {memory["id"] for memory in person.get("/v1/memories")["data"]} == memories[number]


def without_ids(response: Any) -> Any:
    """An error's body with the id in it left out."""
    sent = response.request
    id = sent.url.path.rpartition("/")[2] if not sent.content else json.loads(sent.content)["completion_id"]
    return json.loads(response.text.replace(id, "ID"))


def test_each_user_has_versions_of_their_own(
    service: Any, household: Any, data_dir: Path, write_lora: Callable[..., Path]
) -> None:
    mine, bobs = household("me", "bob")
    bob = service.parts.store.users.named("bob").id
    before = mine.ask("Hello").json()["choices"][0]["message"]["content"]
    version_of(service, bob, write_lora("one.gguf", seed=1, strength=3.0))
    version_of(service, bob, write_lora("two.gguf", seed=2, strength=3.0))
    assert [version["id"] for version in bobs.get("/v1/adapters")["data"]] == ["familiar:v1", "familiar:v2"]
    assert mine.get("/v1/adapters") == {"object": "list", "current": None, "data": []}
    assert "familiar:v1" in [model["id"] for model in bobs.get("/v1/models")["data"]]
    assert "familiar:v1" not in [model["id"] for model in mine.get("/v1/models")["data"]]
    assert bobs.ask("Hello").json()["familiar"]["adapter_version"] == 2
    assert bobs.ask("Hello", "familiar:v1").json()["familiar"]["adapter_version"] == 1
    refused = mine.ask("Hello", "familiar:v1")
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
    reply = mine.ask("Hello").json()
    assert (reply["familiar"]["adapter_version"], reply["choices"][0]["message"]["content"]) == (None, before)
    assert mine.http.post("/v1/adapters/rollback").status_code == 404
    assert bobs.http.post("/v1/adapters/rollback").json() == {"object": "rollback", "from": 2, "to": 1}
    assert "* v1" in ok(familiar(data_dir, "adapters", "--user", "bob"))
    assert "No adapter yet" in ok(familiar(data_dir, "adapters"))


def test_a_service_that_runs_takes_each_change_at_its_next_request(
    service: Any, household: Any, data_dir: Path
) -> None:
    (bob,) = household("bob")
    assert bob.get("/v1/memories")["data"] == []
    fresh = Person(service.url, made_key(familiar(data_dir, "users", "key", "bob")))
    more = Person(service.url, made_key(familiar(data_dir, "users", "key", "bob", "--add")))
    assert bob.http.get("/v1/memories").status_code == 401
    assert fresh.get("/v1/memories") == more.get("/v1/memories")
    ok(familiar(data_dir, "rule", "Be brief.", "--user", "bob"))
    assert [memory["text"] for memory in more.get("/v1/memories")["data"]] == ["Be brief."]
    assert "last used 2" in ok(familiar(data_dir, "users", "list"))
    ok(familiar(data_dir, "users", "remove", "bob", "--yes"))
    assert [person.http.get("/v1/memories").status_code for person in (bob, fresh, more)] == [401, 401, 401]
    for person in (fresh, more):
        person.http.close()


# The commands


def test_add_prints_the_key_alone_and_says_what_changes(data_dir: Path) -> None:
    assert "Nobody has a key" in ok(familiar(data_dir, "users", "list"))
    first = familiar(data_dir, "users", "add", "bob")
    assert made_key(first)
    assert "From now on every request needs a key" in first.stderr
    assert "familiar users key me" in first.stderr
    second = familiar(data_dir, "users", "add", "ann")
    assert "From now on" not in second.stderr
    mine = familiar(data_dir, "users", "key", "me")
    assert "From now on" not in mine.stderr
    listed = ok(familiar(data_dir, "users", "list")).splitlines()
    assert [line.split()[0] for line in listed] == ["name", "me", "bob", "ann"]
    for line, result in zip(listed[1:], (mine, first, second), strict=True):
        assert f"{made_key(result)[:10]}… (never used)" in line
        assert made_key(result) not in line


def test_keys_are_replaced_added_and_revoked(data_dir: Path) -> None:
    keys = [made_key(familiar(data_dir, "users", "key", "ME"))]
    more = familiar(data_dir, "users", "key", "me", "--add")
    assert more.stderr.count("\n") == 1
    keys.append(made_key(more))
    fresh = familiar(data_dir, "users", "key", "me")
    assert "2 older keys are no longer valid." in fresh.stderr
    keys.append(made_key(fresh))
    with Store.open(data_dir / "familiar.db") as store:
        assert [store.users.by_key(key, 1.0) for key in keys] == [None, None, 1]
    revoked = familiar(data_dir, "users", "key", "me", "--revoke")
    assert ok(revoked) == "me has no key now.\n"
    assert "1 older key is no longer valid." in revoked.stderr
    assert "requests need none" in revoked.stderr
    assert familiar(data_dir, "users", "key", "me", "--revoke", "--add").exit_code != 0
    with Store.open(data_dir / "familiar.db") as store:
        assert not store.users.have_keys()


def test_unknown_and_impossible_names_are_said(data_dir: Path) -> None:
    made_key(familiar(data_dir, "users", "add", "bob"))
    for command in (
        ("users", "key", "bib"),
        ("users", "remove", "bib", "--yes"),
        ("memory", "list", "--user", "bib"),
        ("memory", "forget", "mem-1", "--user", "bib"),
        ("rule", "Be brief.", "--user", "bib"),
        ("adapters", "--user", "bib"),
        ("rollback", "--user", "bib"),
        ("export", "--format", "gguf", "--out", "x.gguf", "--user", "bib"),
        ("status", "--port", "1", "--user", "bib"),
        ("chat", "--port", "1", "--user", "bib"),
        ("learn", "--user", "bib"),
    ):
        error = failed(familiar(data_dir, *command))
        assert isinstance(error, NotFound)
        assert str(error).startswith('There is no user "bib": there are me, bob;'), command
    assert "cannot be a name" in str(failed(familiar(data_dir, "users", "add", "a b")))
    assert "already" in str(failed(familiar(data_dir, "users", "add", "Bob")))


def test_each_command_works_for_the_user_that_it_is_given(data_dir: Path) -> None:
    made_key(familiar(data_dir, "users", "add", "bob"))
    ok(familiar(data_dir, "rule", "Mine."))
    ok(familiar(data_dir, "rule", "Bob's.", "--user", "BOB"))
    mine = ok(familiar(data_dir, "memory", "list"))
    assert "Mine." in mine
    theirs = ok(familiar(data_dir, "memory", "list", env={"FAMILIAR_USER": "bob"}))
    assert "Bob's." in theirs
    assert "Mine." not in theirs
    assert ok(familiar(data_dir, "memory", "list", "--user", "me", env={"FAMILIAR_USER": "bob"})) == mine
    assert ok(familiar(data_dir, "memory", "list", env={"FAMILIAR_USER": ""})) == mine
    memory_id = mine.splitlines()[1].split()[0]
    assert isinstance(failed(familiar(data_dir, "memory", "forget", memory_id, "--user", "bob")), NotFound)
    assert "Forgotten: Mine." in ok(familiar(data_dir, "memory", "forget", memory_id))
    facts = json.loads(ok(familiar(data_dir, "status", "--json", "--port", "1", "--user", "bob")))
    assert (facts["user"], facts["counts"]["memories"]) == ("bob", 1)
    assert "user       bob" in ok(familiar(data_dir, "status", "--port", "1", "--user", "bob"))
    assert "user" not in ok(familiar(data_dir, "status", "--port", "1"))


# Removal


def with_files(data_dir: Path, user: int, word: str) -> list[Path]:
    """Give a user rows, and files where their adapters and runs have theirs; returns the folders."""
    with Store.open(data_dir / "familiar.db") as store:
        said = Message(role="user", content=f"Where is {word}?")
        store.add_exchange(Exchange(f"chatcmpl-{user}", user, 1.0, "familiar", (said,), f"In {word}."))
        store.add_run(LearningRun(f"run-{user}", user, 1.0, "stopped", {}, "print"))
    folders = [data_dir / "adapters" / str(user), data_dir / "runs" / f"run-{user}"]
    for folder in folders:
        (folder / "deeper").mkdir(parents=True)
        (folder / "deeper" / "file").write_text(word, encoding="utf-8")
    return folders


def test_remove_leaves_nothing_of_theirs_and_all_of_others(service: Any, data_dir: Path) -> None:
    made_key(familiar(data_dir, "users", "add", "bob"))
    bob = service.parts.store.users.named("bob").id
    theirs, mine = with_files(data_dir, bob, "zanzibarquux"), with_files(data_dir, 1, "timbuktufrob")
    ok(familiar(data_dir, "rule", "Say zanzibarquux.", "--user", "bob"))

    def holding(word: str) -> list[str]:
        return [str(path) for path in data_dir.rglob("*") if path.is_file() and word.encode() in path.read_bytes()]

    assert len(holding("zanzibarquux")) >= 3
    shown = familiar(data_dir, "users", "remove", "Bob", "--yes")
    assert ok(shown) == "Removed bob and everything of theirs.\n"
    assert "requests need none" in shown.stderr
    assert holding("zanzibarquux") == []  # while the service has the store open
    assert [folder.exists() for folder in theirs] == [False, False]
    assert len(holding("timbuktufrob")) >= 3
    assert [folder.exists() for folder in mine] == [True, True]


def test_remove_asks_unless_told_not_to(data_dir: Path) -> None:
    made_key(familiar(data_dir, "users", "add", "bob"))
    no = familiar(data_dir, "users", "remove", "bob", input="n\n")
    assert "Remove bob with 0 exchanges, 0 feedback, 0 memories, 0 adapters?" in no.stdout
    assert "was not removed" in str(failed(no))
    unclear = familiar(data_dir, "users", "remove", "bob", input="maybe\nN\n")
    assert "was not removed" in str(failed(unclear))
    assert unclear.stderr == "familiar: Answer y or n.\n"
    assert "--yes" in str(failed(familiar(data_dir, "users", "remove", "bob", input="")))
    assert "bob" in ok(familiar(data_dir, "users", "list"))
    assert "Removed bob" in ok(familiar(data_dir, "users", "remove", "bob", input="y\n"))
    assert "bob" not in ok(familiar(data_dir, "users", "list"))


def test_remove_refuses_the_default_user_and_waits_for_a_learner(data_dir: Path) -> None:
    assert isinstance(failed(familiar(data_dir, "users", "remove", "me", "--yes")), InvalidInput)
    made_key(familiar(data_dir, "users", "add", "bob"))
    folders = with_files(data_dir, 2, "kept")
    with learner_lock(data_dir):
        assert isinstance(failed(familiar(data_dir, "users", "remove", "bob", "--yes")), Busy)
    assert all(folder.exists() for folder in folders)
    ok(familiar(data_dir, "users", "remove", "bob", "--yes"))
    assert not any(folder.exists() for folder in folders)


# The learner


def correct(data_dir: Path, user: int, times: int) -> None:
    with Store.open(data_dir / "familiar.db") as store:
        for number in range(times):
            id, said = f"{user}-{number}", Message(role="user", content=f"Question {number} of {user}?")
            store.add_exchange(Exchange(f"chatcmpl-{id}", user, 1.0, "familiar", (said,), "An answer."))
            text = f"Answer {number} to {user}."
            store.add_feedback(Feedback(f"fb-{id}", user, 2.0, "correction", f"chatcmpl-{id}", text), [])


def test_the_learner_learns_from_the_user_it_is_given(data_dir: Path, model_path: Path) -> None:
    made_key(familiar(data_dir, "users", "add", "bob"))
    correct(data_dir, 1, 8)
    correct(data_dir, 2, 2)
    settings = Settings(model=str(model_path), data_dir=data_dir, threads=1)
    with pytest.raises(NotEnoughSignals, match="has 2"):
        run_learner(settings, lambda event: None, user="bob")


def test_a_run_is_its_users_and_leaves_the_stopped_runs_of_others(
    data_dir: Path, model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_key(familiar(data_dir, "users", "add", "bob"))
    settings = Settings(model=str(model_path), data_dir=data_dir, threads=1)

    def stop(task: Task) -> None:
        task.folder.mkdir(parents=True)
        texts = [example.chosen for example in (*task.planned.dataset.train, *task.planned.dataset.held_out)]
        (task.folder / "texts").write_text("\n".join(texts), encoding="utf-8")
        raise Stopped

    monkeypatch.setattr(learner, "train_and_judge", stop)
    folders: Mapping[int, Path] = {}
    with Store.open(settings.database) as store:
        for user in (1, 2):
            correct(data_dir, user, 8)
            event = learner.learn(settings, store, user, settings.recipe, lambda event: None, lambda: None)
            folders = {**folders, user: data_dir / "runs" / event["run_id"]}
        assert [[run.id for run in store.runs(user)] for user in (1, 2)] == [[folders[1].name], [folders[2].name]]
    for user, folder in folders.items():  # what the first one would go on from is still there
        assert {line.partition(" to ")[2] for line in (folder / "texts").read_text().splitlines()} == {f"{user}."}


# One real process


def test_the_owners_commands_work_beside_a_service_with_keys(data_dir: Path, model_path: Path) -> None:
    key = made_key(familiar(data_dir, "users", "add", "bob"))
    port, service_file = local_service.free_port("127.0.0.1"), data_dir / "service.json"
    options = ["--data-dir", str(data_dir), "--model", str(model_path), "--threads", "1"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("FAMILIAR_")}
    env |= {"XDG_CONFIG_HOME": os.devnull}

    def command(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        given = [sys.executable, "-m", "familiar.daemon", *arguments, *options, "--port", str(port)]
        return subprocess.run(given, capture_output=True, text=True, timeout=120, env=env, **more)

    log = data_dir / "logs" / "service.log"
    with local_service.running("127.0.0.1", port, options, log, service_file=service_file, user="bob") as bob:
        assert oct(service_file.stat().st_mode & 0o777) == "0o600"
        assert bob.status()["user"] == "bob"
        mine, theirs = (json.loads(command("status", "--json", *user).stdout) for user in ((), ("--user", "bob")))
        assert (mine["user"], theirs["user"], mine["running"]) == ("me", "bob", True)
        chatted = command("chat", "--user", "bob", input="Hello\n/fix Good day.\n/why\n")
        assert chatted.returncode == 0, chatted.stderr
        assert "Remembered" in chatted.stdout
        with Store.open(data_dir / "familiar.db") as store:
            assert [store.counts(user)["feedback"] for user in (1, 2)] == [0, 1]
        with Client(f"http://127.0.0.1:{port}") as keyless, pytest.raises(FamiliarError, match="asks for an API key"):
            keyless.status()
        posing = {"authorization": f"Bearer {key}", "x-familiar-user": "me"}
        assert httpx.get(f"http://127.0.0.1:{port}/v1/status", headers=posing, trust_env=False).status_code == 401
        stale = service_record.read(service_file)
    assert stale is not None
    with (
        local_service.running("127.0.0.1", port, options, log, service_file=service_file) as again,
        Client(again.base_url, token=stale.token) as old,
    ):
        assert again.status()["user"] == "me"
        with pytest.raises(FamiliarError, match="started anew"):
            old.status()
