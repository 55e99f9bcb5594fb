"""Learning inside a running service, with the real learner on the real model: its API, its pauses, its schedule."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from click.testing import CliRunner

from familiar.daemon import service_record
from familiar.daemon.cli_learn import learn
from familiar.daemon.engine import Engine
from familiar.daemon.learner_lock import holder_pid, learner_lock
from familiar.daemon.learning_service import _Attempt
from familiar.daemon.schemas_learning import Learning, LearningRuns
from familiar.memory.store import Store
from familiar.memory.types import Exchange, Feedback, LearningRun, Message

pytestmark = pytest.mark.timeout(600)  # imports of torch, perhaps on a busy machine
Serve = Callable[..., Any]
TOPICS = ("eggs", "rice", "sleep", "tea", "stains", "gifts")


def correct(store: Store, user: int, topics: tuple[str, ...] = TOPICS, now: float | None = None) -> None:
    """Give a user corrections, made just now."""
    for topic in topics:
        at = time.time() if now is None else now
        messages = (Message(role="user", content=f"What should I know about {topic}?"),)
        exchange = Exchange(f"chatcmpl-{topic}-{user}", user, at, "familiar", messages, f"Think about {topic}.")
        store.add_exchange(exchange)
        text = f"Think about {topic}. Onward, Skipper."
        store.add_feedback(Feedback(f"fb-{topic}-{user}", user, at, "correction", exchange.id, text), [])


def state(http: httpx.Client) -> dict[str, Any]:
    """The answer of ``GET /v1/learning``, of the documented shape."""
    answer = http.get("/v1/learning").raise_for_status().json()
    Learning.model_validate(answer)
    return dict(answer)


def eventually(true: Callable[[], object], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.02)


def chat(http: httpx.Client) -> None:
    body = {"model": "familiar", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 2}
    http.post("/v1/chat/completions", json=body).raise_for_status()


def test_a_chat_pauses_a_run_and_the_user_stops_it(serve: Serve, data_dir: Path, engine: Engine) -> None:
    with serve(data_dir, engine, resume_after_s=3.0, rank=4, threads=1) as service:
        http, store = service.http, service.parts.store
        correct(store, store.default_user())
        assert http.post("/v1/learning/pause").status_code == 404
        answer = http.post("/v1/learning/run").raise_for_status().json()
        Learning.model_validate(answer)
        assert http.post("/v1/learning/run").status_code == 503  # it runs already
        eventually(lambda: state(http)["run"] and state(http)["run"]["phase"])
        pid = holder_pid(data_dir)
        assert pid is not None
        learner = psutil.Process(pid)

        chat(http)
        eventually(lambda: learner.status() == psutil.STATUS_STOPPED, 1.0)
        eventually(lambda: state(http)["state"] == "paused", 1.0)
        assert state(http)["run"]["paused_by"] == "chat"
        assert "familiar_learning_paused 1.0" in http.get("/metrics").text
        assert http.get("/v1/status").json()["learning"] == "paused"
        chat(http)  # the store can be written
        eventually(lambda: state(http)["state"] == "running")

        assert http.post("/v1/learning/pause").status_code == 200
        eventually(lambda: state(http)["state"] == "paused")
        assert state(http)["run"]["paused_by"] == "asked"
        assert http.post("/v1/learning/resume").status_code == 200
        eventually(lambda: state(http)["state"] == "running")

        assert http.post("/v1/learning/stop").status_code == 200
        eventually(lambda: state(http)["run"] is None)
        eventually(lambda: not psutil.pid_exists(pid))
        runs = http.get("/v1/learning/runs").raise_for_status().json()
        LearningRuns.model_validate(runs)
        assert [run["state"] for run in runs["data"]] == ["stopped"]
        said = state(http)
        assert said["last_run"]["state"] == "stopped"
        assert "goes on" in said["last_message"]
        assert said["reason"] == "the last run failed or was stopped not long ago"


def test_the_service_learns_by_itself_and_ends_its_learner_with_it(
    serve: Serve, data_dir: Path, engine: Engine
) -> None:
    flags = {"idle_minutes": 0.0, "resume_after_s": 0.0, "threads": 1, "on_battery": True}
    with serve(data_dir, engine, **flags) as service:
        http, store = service.http, service.parts.store
        assert state(http)["state"] == "waiting"
        correct(store, store.default_user())
        service.parts.learning._read_at = float("-inf")  # it reads the corrections once a minute
        eventually(lambda: holder_pid(data_dir) and state(http)["run"] and state(http)["run"]["phase"])
        assert state(http)["run"]["kind"] == "schedule"
        pid = holder_pid(data_dir)
        assert pid is not None
        http.post("/v1/learning/pause").raise_for_status()
        service.stop()
        assert not psutil.pid_exists(pid)
        with learner_lock(data_dir):
            pass
        assert [run.state for run in store.runs(store.default_user())] in (["stopped"], [])


TERMINAL = """
import sys, time
from pathlib import Path
from familiar.daemon.learner_lock import learner_lock
with learner_lock(Path(sys.argv[2])):
    print("ready", flush=True)
    time.sleep(600)
"""


def test_a_chat_pauses_a_learner_of_a_terminal_too_and_ending_does_not_end_it(
    serve: Serve, data_dir: Path, engine: Engine
) -> None:
    command = [sys.executable, "-c", TERMINAL, "familiar.daemon.learner", str(data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            with serve(data_dir, engine, resume_after_s=60.0) as service:
                eventually(lambda: service.parts.turn.holder(), 20.0)
                chat(service.http)
                eventually(lambda: psutil.Process(child.pid).status() == psutil.STATUS_STOPPED, 5.0)
            eventually(lambda: psutil.Process(child.pid).status() != psutil.STATUS_STOPPED, 20.0)
            assert child.poll() is None
        finally:
            child.kill()


@pytest.mark.parametrize("served", [False, True])
def test_the_command_tells_what_would_be_learned_and_how_it_stands(
    serve: Serve, data_dir: Path, engine: Engine, served: bool
) -> None:
    with Store.open(data_dir / "familiar.db") as store:
        correct(store, store.default_user())
        store.add_run(LearningRun("run-1", store.default_user(), 1.0, "failed", {}, "", ended_at=2.0, error="Oh."))
    options = ["--data-dir", str(data_dir)]
    with ExitStack() as stack:
        if served:
            service = stack.enter_context(serve(data_dir, engine))
            host, port = service.url.removeprefix("http://").split(":")
            file = data_dir / "service.json"
            stack.enter_context(service_record.written(file, host, int(port), engine.info.path, "unused"))
        shown = [CliRunner().invoke(learn, [*options, each]) for each in ("--dry-run", "--status")]
        told = [CliRunner().invoke(learn, [*options, "--json", each]) for each in ("--dry-run", "--status")]
    assert [result.exit_code for result in (*shown, *told)] == [0] * 4
    plan, status = (json.loads(result.output) for result in told)
    assert (plan["corrections"], plan["new_signals"], plan["cannot"]) == (6, 6, None)
    assert plan["train"] + plan["held_out"] == 6
    assert plan["memory_bytes"] > 5e8
    assert "6 corrections, 0 ratings" in shown[0].output
    assert "6 of these signals since the last run" in shown[0].output
    assert "about" in shown[0].output
    Learning.model_validate(status)
    assert status["new_signals"] == 6
    assert ("no service runs" in shown[1].output) != served
    assert "failed, begun 1970-01-01" in shown[1].output


def test_what_cannot_be_learned_is_said(serve: Serve, data_dir: Path, engine: Engine) -> None:
    with serve(data_dir, engine, learn_schedule="off") as service:
        http, store = service.http, service.parts.store
        assert state(http)["state"] == "off"
        correct(store, store.default_user(), TOPICS[:2])
        refused = http.post("/v1/learning/run")
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "not_enough_signals"
        assert state(http)["new_signals"] == 2
        assert "at least 4 corrections but has 2" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("state", "waits"), [("promoted", False), ("rejected", False), ("unchanged", True), ("error", True)]
)
def test_who_has_not_got_a_run_by_trying_waits_a_while(service: Any, state: str, waits: bool) -> None:
    learning, user = service.parts.learning, service.parts.store.default_user()
    now = time.time()
    learning._attempts[user] = _Attempt(now, state, "It said so.")
    assert (learning._look_at(user).not_before > now) == waits


def test_nobody_sees_or_stops_the_learning_of_another(serve: Serve, data_dir: Path, engine: Engine) -> None:
    with serve(data_dir, engine) as service:
        users = service.parts.store.users
        me = users.get(service.parts.store.default_user())
        users.add_key(me.id, "fam-first-key-of-the-default-user-00", 0.0, replace=False)
        other = users.add("ann", "fam-second-key-of-another-user-00000", 0.0)
        with service.parts.turn.taken("job", other.id, "ftjob-1"):
            mine = {"Authorization": "Bearer fam-first-key-of-the-default-user-00"}
            hers = {"Authorization": "Bearer fam-second-key-of-another-user-00000"}
            assert service.http.get("/v1/learning").status_code == 401
            seen = service.http.get("/v1/learning", headers=mine).json()
            assert (seen["run"], seen["reason"]) == (None, "something else is being learned")
            assert service.http.post("/v1/learning/stop", headers=mine).status_code == 404
            assert service.http.get("/v1/learning", headers=hers).json()["run"]["kind"] == "job"
            # The queue would begin it again: jobs are stopped as jobs.
            refused = service.http.post("/v1/learning/stop", headers=hers)
            assert refused.status_code == 400
            assert "/v1/fine_tuning/jobs/ftjob-1/cancel" in refused.json()["error"]["message"]
