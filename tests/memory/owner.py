"""A store in which a user owns something of every sort, for the tests of exports and backups."""

from dataclasses import replace

from familiar.memory.finetuning_types import Job, JobCheckpoint, JobEvent, StoredFile, TunedModel
from familiar.memory.store import Store
from familiar.memory.types import AdapterVersion, Exchange, Feedback, LearningRun, Memory, Message, Used


def fill(store: Store, user: int, prefix: str = "", count: int = 3) -> None:
    """Give ``user`` exchanges, feedback, memories, superseded ones too, runs, versions, probes, graders and jobs."""
    for number in range(count):
        name = f"{prefix}{number}"
        turn = Message(role="user", content=f'Question {name}: Grüße, "Zoë"?\n🦊')
        at = 1000.0 + number / 7
        exchange = Exchange(
            f"chatcmpl-{name}", user, at, "familiar", (turn,), f"wrong {name}", 1, (Used(f"mem-{name}", "words", 0.5),)
        )
        store.add_exchange(exchange)
        memory = Memory(f"mem-{name}", user, at, "example", f"right {name}", turn["content"], f"fb-{name}")
        signal = Feedback(f"fb-{name}", user, at, "correction", exchange.id, memory.text, key=f"deed-{name}")
        store.add_feedback(signal, [memory])
    old, new = (f"mem-{prefix}{word}" for word in ("old", "new"))
    store.put_memory(Memory(old, user, 1.0, "fact", f"I live in Old{prefix}ville.", pinned=True), 1.0)
    store.put_memory(Memory(new, user, 2.0, "fact", f"The capital is New{prefix}ton."), 2.0)
    run = LearningRun(
        f"run-{prefix}1", user, 3.0, "promoted", {"epochs": 2}, "f", 77, 4.0, 1, None, {"gate": [1.5, None]}
    )
    store.add_run(run)
    ids = tuple(f"fb-{prefix}{number}" for number in range(count))
    for number, parent in ((1, None), (2, 1)):
        version = AdapterVersion(
            user,
            number,
            5.0,
            f"adapters/{user}/v{number}",
            parent,
            "base",
            f"{prefix}gguf{number}",
            run.id,
            ids,
            {"a": 1},
        )
        store.add_version(version, make_current=True)
    with store.connection.write() as transaction:
        transaction.execute(
            "UPDATE memories SET state = 'superseded', superseded_by = ?, ended_at_s = 2.0 WHERE id = ?", (new, old)
        )
        transaction.execute(
            "INSERT INTO graders (id, user_id, created_at_s, name, definition_json, memory_id)"
            " VALUES (?, ?, 1, 'n', ?, ?)",
            (f"grader-{prefix}1", user, '{"type": "string_check"}', new),
        )
        transaction.execute(
            "INSERT INTO probes"
            " (user_id, created_at_s, memory_id, adapter_version, shown, prompt, completion, followed)"
            " VALUES (?, 9, ?, 1, 1, 'p', 'c', 0.5)",
            (user, new),
        )
    file = StoredFile(f"file-{prefix}1", user, 10.0, "train.jsonl", "fine-tune")
    store.files.add(file)
    job = Job(
        id=f"ftjob-{prefix}1",
        user_id=user,
        created_at=11.0,
        state="running",
        model="familiar",
        base_sha256="base",
        name=f"ft:base:me::{prefix}1",
        training_file=file.id,
        validation_file=None,
        suffix=None,
        seed=1,
        method={"type": "supervised"},
        metadata={"team": "blue"},
    )
    store.fine_tuning.add(job)
    store.fine_tuning.add_event(JobEvent(f"ftevent-{prefix}1", user, job.id, 12.0, "info", "message", "Begun."))
    step = TunedModel(f"{job.name}:ckpt-step-1", user, job.id, 13.0, 1, "base", f"{prefix}gguf")
    store.fine_tuning.add_checkpoint(
        JobCheckpoint(f"ftckpt-{prefix}1", user, job.id, 13.0, 1, step.id, {"train_loss": 0.5}), step
    )
    store.fine_tuning.succeed(job.id, replace(step, id=job.name), 14.0, 12, file.id)
