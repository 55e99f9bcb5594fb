"""Fine-tuning jobs through the official client, on a real socket, with real children on the built-in model.

Importing torch is slow, so one supervised job serves most tests: it is paused after its first checkpoint, resumed in
another process, and left to end. The other methods run within this process.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from click.testing import CliRunner

from familiar.adapters.gguf_file import read_header
from familiar.daemon import learner_job
from familiar.daemon.cli import cli
from familiar.daemon.engine import Engine
from familiar.daemon.fine_tuning_service import FineTuningService
from familiar.daemon.learner_lock import learner_lock
from familiar.memory.store import Store

pytestmark = pytest.mark.timeout(900)  # imports of torch, perhaps on a busy machine
TOPICS = ("eggs", "rice", "tea", "books")
FAST = {"threads": 1, "resume_after_s": 0.0, "rank": 4, "learn_schedule": "off"}
"""Settings: what is learnt does not matter here."""


def question(topic: str) -> dict[str, str]:
    return {"role": "user", "content": f"What should I know about {topic}?"}


def supervised(*topics: str) -> list[Any]:
    return [{"messages": [question(topic), {"role": "assistant", "content": "Onward, Skipper."}]} for topic in topics]


def preferences(*topics: str) -> list[Any]:
    return [
        {
            "input": {"messages": [question(topic)]},
            "preferred_output": [{"role": "assistant", "content": "Onward, Skipper."}],
            "non_preferred_output": [{"role": "assistant", "content": f"Think about {topic}."}],
        }
        for topic in topics
    ]


def upload(service: Any, rows: list[Any]) -> str:
    content = "\n".join(map(json.dumps, rows)).encode()
    return str(service.openai.files.create(file=("train.jsonl", content), purpose="fine-tune").id)


def create(service: Any, rows: list[Any] | None = None, **given: Any) -> Any:
    training_file = given.pop("training_file", None) or upload(service, rows or supervised(*TOPICS))
    return service.openai.fine_tuning.jobs.create(**{"model": "familiar", "training_file": training_file, **given})


def method(name: str, **hyperparameters: Any) -> Any:
    return {"type": name, name: {"hyperparameters": hyperparameters}}


def wait_for(what: Callable[[], Any], timeout_s: float = 600) -> Any:
    """The first true thing that ``what`` gives."""
    end = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)
    return found


def settled(service: Any, job: Any, *states: str) -> Any:
    """The job once it is in one of the states."""

    def found() -> Any:
        now = service.openai.fine_tuning.jobs.retrieve(job.id)
        assert now.status in states or now.status not in ("succeeded", "failed", "cancelled"), now
        return now if now.status in states else None

    return wait_for(found)


def messages(service: Any, job: Any) -> list[str]:
    """What was told of a job, oldest first."""
    return [event.message for event in service.openai.fine_tuning.jobs.list_events(job.id, limit=7)][::-1]


@dataclass(frozen=True)
class Tuned:
    """A service on which a job was paused, resumed and ended."""

    service: Any
    data_dir: Path
    training_file: str
    paused: Any
    events_when_paused: list[str]
    job: Any


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, engine: Engine, serve: Any) -> Iterator[Tuned]:
    """One job, made once, and the service that it was made on."""
    data_dir = tmp_path_factory.mktemp("tuned")
    with serve(data_dir, engine, **FAST) as service:
        training_file = upload(service, supervised(*TOPICS, "sleep"))
        validation_file = upload(service, supervised("gifts"))
        job = create(
            service,
            training_file=training_file,
            validation_file=validation_file,
            suffix="my skipper",
            seed=3,
            method=method("supervised", n_epochs=4, batch_size=3),
            metadata={"team": "blue"},
        )
        assert job.status == "validating_files"
        jobs = service.openai.fine_tuning.jobs
        wait_for(lambda: settled(service, job, "queued", "running") and jobs.checkpoints.list(job.id).data)
        paused = jobs.pause(job.id)
        wait_for(lambda: service.parts.turn.holder() is None)  # its process has ended
        told = messages(service, job)
        jobs.resume(job.id)
        done = settled(service, job, "succeeded")
        wait_for(lambda: service.parts.turn.holder() is None)
        yield Tuned(service, data_dir, training_file, paused, told, done)


def test_a_finished_job_says_what_it_made(tuned: Tuned) -> None:
    job = tuned.job
    assert job.object == "fine_tuning.job"
    assert job.fine_tuned_model.startswith("ft:Familiar-Base:me:my-skipper:")
    assert (job.model, job.seed, job.training_file) == ("familiar", 3, tuned.training_file)
    assert (job.metadata, job.organization_id, job.error) == ({"team": "blue"}, "me", None)
    assert job.finished_at >= job.created_at
    assert job.trained_tokens > 4 * 5 * 10
    assert job.method.supervised.hyperparameters.to_dict() == {
        "n_epochs": 4,
        "batch_size": 3,
        "learning_rate_multiplier": 1.0,
    }
    assert job.hyperparameters.n_epochs == 4
    listed = tuned.service.openai.fine_tuning.jobs.list(metadata={"team": "blue"})
    assert [each.id for each in listed] == [job.id]
    assert tuned.service.openai.fine_tuning.jobs.list(metadata={"team": "red"}).data == []


def test_a_paused_job_goes_on_from_its_checkpoint(tuned: Tuned) -> None:
    assert tuned.paused.status == "paused"
    assert "Fine-tuning job paused" in tuned.events_when_paused
    events = list(tuned.service.openai.fine_tuning.jobs.list_events(tuned.job.id))[::-1]
    told = [event.message for event in events]
    assert told[0] == f"Created fine-tuning job: {tuned.job.id}"
    assert told[1].startswith(f"Validating training file: {tuned.training_file} and validation file: file-")
    assert told[2:4] == ["Files validated, moving job to queued state", "Fine-tuning job started"]
    resumed = told.index("Fine-tuning job resumed")
    assert told[resumed + 1] == "Fine-tuning job started"
    steps = [event.data["step"] for event in events[resumed:] if event.type == "metrics"]
    assert steps[0] > 2  # of 2 in an epoch: the first epoch was not taken again
    assert told[-2:] == [f"New fine-tuned model created: {tuned.job.fine_tuned_model}", told[-1]]
    assert told[-1] == "The job has successfully completed"
    metrics = next(event for event in reversed(events) if event.type == "metrics")
    assert metrics.data["step"] == metrics.data["total_steps"] == 8
    assert metrics.data["valid_loss"] > 0
    assert events[0].object == "fine_tuning.job.event"


def test_checkpoints_are_the_last_three_epochs(tuned: Tuned) -> None:
    found = tuned.service.openai.fine_tuning.jobs.checkpoints.list(tuned.job.id).data
    assert [each.step_number for each in found] == [8, 6, 4]
    for each in found:
        assert each.fine_tuned_model_checkpoint == f"{tuned.job.fine_tuned_model}:ckpt-step-{each.step_number}"
        assert each.fine_tuning_job_id == tuned.job.id
        assert each.metrics.step == each.step_number
        assert each.metrics.train_loss > 0
        assert each.metrics.valid_loss == each.metrics.full_valid_loss > 0
    assert found[0].metrics.valid_loss < found[-1].metrics.valid_loss
    page = tuned.service.openai.fine_tuning.jobs.checkpoints.list(tuned.job.id, after=found[0].id, limit=1)
    assert ([each.id for each in page.data], page.has_more) == ([found[1].id], True)


def test_the_results_are_a_file(tuned: Tuned) -> None:
    files = tuned.service.openai.files
    (id,) = tuned.job.result_files
    assert files.retrieve(id).purpose == "fine-tune-results"
    head, *steps = files.content(id).text.splitlines()
    assert head.startswith("step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy")
    assert [line.split(",")[0] for line in steps] == [str(step) for step in range(1, 9)]
    assert steps[1].split(",")[3] != ""
    assert steps[0].split(",")[3] == ""


def test_the_model_and_its_checkpoints_are_served(tuned: Tuned) -> None:
    client, name = tuned.service.openai, tuned.job.fine_tuned_model
    served = {model.id for model in client.models.list()}
    assert {name, *(f"{name}:ckpt-step-{step}" for step in (4, 6, 8))} <= served
    assert client.models.retrieve(name).created >= tuned.job.created_at

    def logprob(model: str) -> float:
        text = "Onward, Skipper"
        reply = client.completions.create(model=model, prompt=text, echo=True, logprobs=0, max_tokens=1)
        found = reply.choices[0].logprobs
        of_prompt = zip(found.token_logprobs, found.text_offset, strict=True)
        return float(sum(value for value, offset in of_prompt if value and offset < len(text)))

    assert logprob(name) == pytest.approx(logprob(f"{name}:ckpt-step-8"), abs=1e-4)
    assert logprob(name) > logprob("familiar:base") + 0.1
    reply = client.chat.completions.create(model=name, messages=[question("eggs")], max_tokens=8)
    assert reply.model == name
    assert reply.choices[0].message.content


def test_what_it_left_on_the_disk(tuned: Tuned) -> None:
    folder = tuned.data_dir / "fine_tuning" / "1" / tuned.job.id
    assert sorted(path.name for path in folder.iterdir()) == ["step-4", "step-6", "step-8"]
    assert read_header(folder / "step-8" / "adapter.gguf").text("adapter.type") == "lora"
    assert (folder / "step-8" / "adapter_model.safetensors").is_file()


def test_models_are_for_their_owner_and_can_be_deleted(tuned: Tuned) -> None:
    service, name = tuned.service, tuned.job.fine_tuned_model
    users = service.parts.store.users
    users.add("bob", "fam-bob", time.time())
    chat = {"model": name, "messages": [question("eggs")], "max_tokens": 1}
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="fam-bob", max_retries=0) as bob:
        assert name not in {model.id for model in bob.models.list()}
        for ask in (
            lambda: bob.chat.completions.create(**chat),
            lambda: bob.models.delete(name),
            lambda: bob.fine_tuning.jobs.retrieve(tuned.job.id),
            lambda: bob.fine_tuning.jobs.cancel(tuned.job.id),
            lambda: bob.fine_tuning.jobs.list_events(tuned.job.id),
            lambda: bob.fine_tuning.jobs.checkpoints.list(tuned.job.id),
        ):
            with pytest.raises(openai.NotFoundError):
                ask()
        assert bob.fine_tuning.jobs.list().data == []
    service.parts.store.erase(users.named("bob").id, keep_user=False)
    for last in (f"{name}:ckpt-step-8", f"{name}:ckpt-step-4"):
        assert service.openai.models.delete(last).deleted
    service.openai.chat.completions.create(**chat)  # shares the adapter of one of these
    assert not (tuned.data_dir / "fine_tuning" / "1" / tuned.job.id / "step-4").exists()
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        service.openai.models.delete(f"{name}:ckpt-step-4")
    with pytest.raises(openai.BadRequestError, match="only these can be deleted"):
        service.openai.models.delete("familiar:base")
    with pytest.raises(openai.BadRequestError, match="training cannot go on from one"):
        create(service, training_file=tuned.training_file, model=name)


# Jobs that do not get their turn


@pytest.fixture
def idle(tmp_path: Path, engine: Engine, serve: Any) -> Iterator[Any]:
    """A service whose jobs wait, as something else has the turn to learn."""
    with serve(tmp_path / "idle", engine, **FAST) as service, service.parts.turn.taken("asked", 1, "other"):
        yield service
        for job in service.openai.fine_tuning.jobs.list():
            with suppress(openai.BadRequestError):
                service.openai.fine_tuning.jobs.cancel(job.id)


def test_a_bad_file_fails_its_job_with_the_line(idle: Any) -> None:
    good = upload(idle, supervised("eggs"))
    bad = upload(idle, [*supervised("eggs"), {"messages": [question("rice")]}])
    named: dict[str, dict[str, Any]] = {
        "training_file": {"training_file": bad},
        "validation_file": {"training_file": good, "validation_file": bad},
    }
    for name, given in named.items():
        job = settled(idle, create(idle, **given), "failed")
        assert (job.error.code, job.error.param) == (f"invalid_{name}", name)
        assert job.error.message.startswith(f"{bad}: Line 2: No message is an assistant's")
        assert job.finished_at is not None
        event = idle.openai.fine_tuning.jobs.list_events(job.id).data[0]
        assert (event.level, event.message) == ("error", f"The job failed: {job.error.message}")
    wrong = settled(idle, create(idle, training_file=good, method=method("dpo")), "failed")
    assert "Line 1: Missing required parameter: input" in wrong.error.message


def test_what_cannot_be_asked_for_is_refused_by_name(idle: Any) -> None:
    file = upload(idle, supervised("eggs"))
    grader = {"type": "string_check", "name": "g", "input": "{{sample.output_text}}", "reference": "a"}
    for param, given in (
        ("model", {"model": "gpt-4o-mini-2024-07-18"}),
        ("training_file", {"training_file": "file-unknown"}),
        ("validation_file", {"validation_file": "file-unknown"}),
        ("suffix", {"suffix": "x" * 65}),
        ("seed", {"seed": -1}),
        ("integrations", {"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}),
        ("metadata", {"metadata": {str(number): "x" for number in range(17)}}),
        ("method.supervised.hyperparameters.n_epochs", {"method": method("supervised", n_epochs=0)}),
        ("method.dpo.hyperparameters.beta", {"method": method("dpo", beta="strong")}),
        ("method.supervised.hyperparameters.beta", {"method": method("supervised", beta=0.1)}),
        ("method.dpo", {"method": {"type": "supervised", "dpo": {}}}),
        ("method.reinforcement", {"method": {"type": "reinforcement"}}),
        ("method.reinforcement.grader", {"method": method("reinforcement")}),
        ("grader.operation", {"method": {"type": "reinforcement", "reinforcement": {"grader": grader}}}),
        ("hyperparameters", {"hyperparameters": {"n_epochs": 1}, "method": method("supervised")}),
        ("epochs", {"extra_body": {"epochs": 3}}),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            create(idle, **{"training_file": file, **given})
        assert refused.value.param == param, refused.value
    assert idle.openai.fine_tuning.jobs.list().data == []


def test_jobs_wait_in_order_and_are_paused_and_cancelled(idle: Any) -> None:
    file = upload(idle, supervised("eggs"))
    jobs = idle.openai.fine_tuning.jobs
    first, second, third = (
        settled(idle, create(idle, training_file=file, hyperparameters={"n_epochs": 2}), "queued") for _ in range(3)
    )
    assert first.method.supervised.hyperparameters.to_dict() == {
        "n_epochs": 2,
        "batch_size": 1,
        "learning_rate_multiplier": 1.0,
    }
    assert [job.id for job in jobs.list()] == [third.id, second.id, first.id]
    assert [job.id for job in jobs.list(limit=1, after=third.id).data] == [second.id]
    assert [job.id for job in idle.parts.store.fine_tuning.to_do()] == [first.id, second.id, third.id]
    assert jobs.pause(first.id).status == "paused"
    assert [job.id for job in idle.parts.store.fine_tuning.to_do()] == [second.id, third.id]
    assert jobs.resume(first.id).status == "queued"
    cancelled = jobs.cancel(first.id)
    assert (cancelled.status, cancelled.fine_tuned_model) == ("cancelled", None)
    assert cancelled.finished_at is not None
    for change, done in ((jobs.cancel, "cancelled"), (jobs.pause, "paused"), (jobs.resume, "resumed")):
        with pytest.raises(openai.BadRequestError, match=f"is cancelled: only one .* can be {done}"):
            change(first.id)
    assert messages(idle, first)[-1] == "Fine-tuning job cancelled"
    event = jobs.list_events(first.id, limit=2)
    assert (len(event.data), event.has_more) == (2, True)
    unlabelled = idle.http.get("/v1/fine_tuning/jobs", params={"metadata": "null"}).json()
    assert len(unlabelled["data"]) == 3
    assert idle.http.get("/v1/fine_tuning/jobs", params={"colour": "red"}).status_code == 400


def test_jobs_from_the_terminal(idle: Any) -> None:
    job = settled(idle, create(idle, supervised("eggs")), "queued")
    data_dir, env = str(idle.parts.settings.data_dir), {"FAMILIAR_USER": None, "XDG_CONFIG_HOME": os.devnull}

    def jobs(*arguments: str) -> str:
        return CliRunner().invoke(cli, ["jobs", *arguments, "--data-dir", data_dir], env=env).output

    assert f"queued            {job.id}" in jobs("list")
    shown = jobs("show", job.id)
    assert "once it is made" in shown
    assert f"Created fine-tuning job: {job.id}" in shown
    assert jobs("cancel", job.id) == f"Cancelled {job.id}.\n"
    assert idle.openai.fine_tuning.jobs.retrieve(job.id).status == "cancelled"
    again = CliRunner().invoke(cli, ["jobs", "cancel", job.id, "--data-dir", data_dir], env=env)
    assert "is cancelled already" in str(again.exception)


class EndsMeanwhile(threading.Event):
    """An event that is set, with the service's end, at the worst moment: right before the queue clears it."""

    jobs: FineTuningService

    def clear(self) -> None:
        self.jobs._closed = True
        self.set()
        super().clear()


def test_the_queue_does_not_sleep_through_the_end(idle: Any) -> None:
    parts = idle.parts
    jobs = FineTuningService(parts.settings, parts.store, parts.files, parts.turn, time.time)
    jobs._wake = EndsMeanwhile()
    jobs._wake.jobs = jobs
    jobs.start()
    jobs._thread.join(20)
    assert not jobs._thread.is_alive()


def test_what_an_ended_job_left_goes_when_the_service_starts(data_dir: Path, engine: Engine, serve: Any) -> None:
    with serve(data_dir, engine, **FAST) as service, learner_lock(data_dir):
        waiting, ended = (settled(service, create(service, supervised("eggs")), "queued") for _ in range(2))
        service.parts.store.fine_tuning.move(ended.id, ("queued",), "cancelled")  # as a terminal does
    left = [data_dir / "fine_tuning" / "1" / job.id / "run" / "epoch-001" for job in (waiting, ended)]
    for folder in left:
        folder.mkdir(parents=True)
    with learner_lock(data_dir), serve(data_dir, engine, **FAST):
        wait_for(lambda: not left[1].exists(), 20)
        assert left[0].exists()


# Jobs that begin


def test_a_job_survives_its_service_and_a_killed_process_fails_it(data_dir: Path, engine: Engine, serve: Any) -> None:
    with serve(data_dir, engine, **FAST) as service, learner_lock(data_dir):
        job = settled(service, create(service), "queued")
        last = create(service, supervised("eggs"))
    # Another learner had the lock, so it waited; a new service takes it up.
    with serve(data_dir, engine, **FAST) as service:
        settled(service, job, "running")
        assert service.openai.fine_tuning.jobs.retrieve(last.id).status == "queued"
        child = wait_for(lambda: (lease := service.parts.turn._lease) and lease.child)
        os.kill(child.pid, signal.SIGKILL)
        failed = settled(service, job, "failed")
        assert failed.error.code == "learning_failed"
        assert "was ended by SIGKILL (out of memory, perhaps)" in failed.error.message
        # The next one begins; a service that ends puts it back.
        settled(service, last, "running")
    with Store.open(data_dir / "familiar.db") as store:
        (left,) = store.fine_tuning.to_do()
        assert (left.id, left.state) == (last.id, "queued")


def test_a_running_job_is_cancelled(data_dir: Path, engine: Engine, serve: Any) -> None:
    with serve(data_dir, engine, **FAST) as service:
        job = settled(service, create(service), "running")
        assert service.openai.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    with Store.open(data_dir / "familiar.db") as store:
        assert store.fine_tuning.job(1, job.id).state == "cancelled"


# The other methods, within this process


def run_here(service: Any, job: Any, asked: Callable[[], bool] = lambda: False) -> Any:
    """Work on a job as its process would, until ``asked`` says to stop."""
    learner_job.run(service.parts.settings, service.parts.store, job.id, asked)
    return service.openai.fine_tuning.jobs.retrieve(job.id)


def steps_published(service: Any, job: Any) -> list[int]:
    """The steps whose checkpoints are served, the last one first."""
    served = {model.id for model in service.openai.models.list()}
    checkpoints = service.openai.fine_tuning.jobs.checkpoints.list(job.id).data
    return [each.step_number for each in checkpoints if each.fine_tuned_model_checkpoint in served]


def test_preferences_are_learnt_the_same_however_often_it_stops(idle: Any) -> None:
    rows = upload(idle, preferences(*TOPICS))
    given = {"training_file": rows, "method": method("dpo", n_epochs=2, beta=0.2), "seed": 5}
    whole, parts = (settled(idle, create(idle, **given), "queued") for _ in range(2))
    # A stop that comes when a checkpoint is written, and not yet published: training does not tell of it again.
    saved = idle.parts.settings.data_dir / "fine_tuning" / "1" / parts.id / "run" / "epoch-001"
    assert run_here(idle, parts, saved.exists).status == "queued"
    assert steps_published(idle, parts) == [1]
    done = [run_here(idle, whole), run_here(idle, parts)]
    assert [job.status for job in done] == ["succeeded", "succeeded"], done
    models = [idle.parts.store.fine_tuning.model(1, job.fine_tuned_model) for job in done]
    assert models[0].gguf_sha256 == models[1].gguf_sha256
    figures = next(event.data for event in idle.openai.fine_tuning.jobs.list_events(whole.id) if event.data)
    assert {"train_loss", "train_reward_accuracy", "train_reward_margin"} <= figures.keys()
    assert steps_published(idle, whole) == steps_published(idle, parts) == [2, 1]
    told = [event.message for event in idle.openai.fine_tuning.jobs.list_events(whole.id)]
    assert "No validation data: all rows are trained on, and 4 of them measure the checkpoints." in told


def test_reinforcement_learns_what_its_grader_likes(idle: Any) -> None:
    grader = {
        "type": "python",
        "name": "short",
        "source": "def grade(sample, item):\n    return 1.0 if item['want'] in sample['output_text'] else 0.0",
    }
    rows = [{"messages": [question(topic)], "want": "a"} for topic in TOPICS]
    given: dict[str, Any] = {
        "training_file": upload(idle, rows),
        "validation_file": upload(idle, rows[:1]),
        "seed": 7,
        "method": {
            "type": "reinforcement",
            "reinforcement": {
                "grader": grader,
                "hyperparameters": {
                    "n_epochs": 1,
                    "batch_size": 2,
                    "compute_multiplier": 0.5,
                    "reasoning_effort": "low",
                },
            },
        },
    }
    job, cut = (settled(idle, create(idle, **given), "queued") for _ in range(2))
    done = run_here(idle, job)
    assert done.status == "succeeded", done.error
    saved = idle.parts.settings.data_dir / "fine_tuning" / "1" / cut.id / "run" / "epoch-001"
    assert run_here(idle, cut, saved.exists).status == "queued"
    resumed = run_here(idle, cut)
    assert resumed.status == "succeeded", resumed.error
    assert resumed.trained_tokens == done.trained_tokens > 0
    assert done.method.reinforcement.hyperparameters.eval_interval == 2
    (checkpoint,) = idle.openai.fine_tuning.jobs.checkpoints.list(job.id).data
    assert checkpoint.step_number == 2
    told = [event for event in idle.openai.fine_tuning.jobs.list_events(job.id) if event.type == "metrics"]
    assert [event.data["step"] for event in told] == [2, 1]
    assert all("valid_mean_reward" in event.data for event in told)
    assert done.fine_tuned_model in {model.id for model in idle.openai.models.list()}
