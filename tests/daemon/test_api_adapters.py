"""Adapters through the API: which one answers, what its number means, and what becomes of a damaged one."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from familiar.adapters import registry
from familiar.adapters.gate import Report
from familiar.memory.types import AdapterVersion, LearningRun

HI = [{"role": "user", "content": "Hello there, how are you?"}]


def ask(service: Any, model: str = "familiar:base", **fields: Any) -> Any:
    given = {"messages": HI, "max_tokens": 6, "temperature": 0, **fields}
    return service.openai.chat.completions.create(model=model, **given)


def exchange(service: Any, completion_id: str) -> Any:
    return service.http.get(f"/v1/exchanges/{completion_id}").raise_for_status().json()


def add_rule(service: Any, rule: str) -> Any:
    """The memory that a rule becomes."""
    return service.http.post("/v1/feedback", json={"rule": rule}).raise_for_status().json()["memories"][0]


def promote(service: Any, gguf: Path) -> AdapterVersion:
    """Make a version of a random adapter, as the learner does of one that passed."""
    store, folder = service.parts.store, gguf.parent / f"candidate-{gguf.stem}"
    run = LearningRun(
        id=f"run-{gguf.stem}", user_id=1, created_at=1.0, state="running", config={}, fingerprint=gguf.stem
    )
    store.add_run(run)
    folder.mkdir()
    shutil.copyfile(gguf, folder / registry.GGUF)
    for name in registry.PEFT_FILES:
        (folder / name).write_bytes(b"{}")
    report = Report(passed=True, checks=())
    sha256 = service.parts.base_sha256()
    data_dir = service.parts.settings.data_dir
    return registry.promote(
        store, data_dir, run, folder, base_sha256=sha256, feedback_ids=(), report=report, now=time.time()
    )


def test_a_promoted_adapter_answers_the_next_request(service: Any, write_lora: Any) -> None:
    before = ask(service, "familiar").choices[0].message.content
    promote(service, write_lora("one.gguf", seed=1))
    assert [model.id for model in service.openai.models.list()] == [
        "familiar",
        "familiar:memory",
        "familiar:adapter",
        "familiar:base",
        "familiar:v1",
    ]
    adapted = ask(service, "familiar")
    assert adapted.model_extra["familiar"]["adapter_version"] == 1
    assert exchange(service, adapted.id)["adapter_version"] == 1
    assert adapted.choices[0].message.content != before
    for model in ("familiar:v1", "familiar:adapter"):
        assert ask(service, model).choices[0].message.content == adapted.choices[0].message.content
    for model in ("familiar:base", "familiar:memory"):
        plain = ask(service, model)
        assert plain.model_extra["familiar"]["adapter_version"] is None
        assert plain.choices[0].message.content == before


def test_versions_and_memory_are_told_apart(service: Any, write_lora: Any) -> None:
    promote(service, write_lora("one.gguf", seed=1))
    promote(service, write_lora("two.gguf", seed=2))
    add_rule(service, "Always use metric units.")
    one, two = ask(service, "familiar:v1"), ask(service, "familiar:v2")
    assert one.choices[0].message.content != two.choices[0].message.content
    told = one.model_extra["familiar"]
    assert (told["adapter_version"], told["memories"], told["notice"]) == (1, [], None)
    assert ask(service, "familiar:adapter").choices[0].message.content == two.choices[0].message.content
    assert len(ask(service, "familiar").model_extra["familiar"]["memories"]) == 1
    listed = service.http.get("/v1/adapters").json()
    assert listed["current"] == 2
    assert [(each["number"], each["parent"], each["current"]) for each in listed["data"]] == [
        (1, None, False),
        (2, 1, True),
    ]


def test_rolling_back_takes_effect_on_the_next_request(service: Any, write_lora: Any) -> None:
    promote(service, write_lora("one.gguf", seed=1))
    promote(service, write_lora("two.gguf", seed=2))
    for expected, served in (({"from": 2, "to": 1}, 1), ({"from": 1, "to": None}, None)):
        assert service.http.post("/v1/adapters/rollback").json() == {"object": "rollback", **expected}
        assert ask(service, "familiar").model_extra["familiar"]["adapter_version"] == served
    assert "familiar:adapter" not in [model.id for model in service.openai.models.list()]
    assert ask(service, "familiar:v2").model_extra["familiar"]["adapter_version"] == 2


def test_no_request_is_lost_while_versions_are_swapped(service: Any, write_lora: Any) -> None:
    """Requests in flight end under the version they began with; each new one takes the version current then."""
    numbers = [promote(service, write_lora(f"{seed}.gguf", seed=seed)).number for seed in (1, 2)]
    expected: dict[int | None, str] = {}
    for number in numbers:
        expected[number] = ask(service, f"familiar:v{number}").choices[0].message.content
    expected[None] = ask(service, "familiar:base").choices[0].message.content
    user = service.parts.store.default_user()
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(ask, service, "familiar") for _ in range(40)]
        for current in (1, 2, None) * 10:
            service.parts.store.set_current(user, current)
            time.sleep(0.02)
        replies = [each.result() for each in waiting]
    assert len(replies) == 40
    for reply in replies:
        served = reply.model_extra["familiar"]["adapter_version"]
        assert reply.choices[0].message.content == expected[served]
    assert len({reply.model_extra["familiar"]["adapter_version"] for reply in replies}) > 1


def test_replies_at_the_same_time_share_no_adapter_and_no_prompt(service: Any, write_lora: Any) -> None:
    promote(service, write_lora("one.gguf", seed=1))
    promote(service, write_lora("two.gguf", seed=2))
    models = ["familiar:base", "familiar:v1", "familiar:v2", "familiar"] * 6
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda number: ask(service, models[number], messages=_numbered(number)), range(24)))
    served = {"familiar:base": None, "familiar:v1": 1, "familiar:v2": 2, "familiar": 2}
    for number, reply in enumerate(replies):
        assert reply.model_extra["familiar"]["adapter_version"] == served[models[number]]
        logged = exchange(service, reply.id)
        assert logged["messages"] == _numbered(number)
        assert logged["completion"] == reply.choices[0].message.content
        assert logged["adapter_version"] == served[models[number]]


def _numbered(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Request number {number}"}]


@pytest.mark.parametrize("damage", ["missing", "corrupt", "truncated"])
def test_a_damaged_adapter_is_an_error_by_its_number_and_a_notice_by_default(
    damage: str, service: Any, write_lora: Any, caplog: pytest.LogCaptureFixture
) -> None:
    version = promote(service, write_lora("one.gguf", seed=1))
    good = ask(service, "familiar:v1").choices[0].message.content
    path = service.parts.settings.data_dir / version.folder / registry.GGUF
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "corrupt":
        path.write_bytes(whole[:-4] + b"\0\1\2\3")
    else:
        path.write_bytes(whole[:1000])
    for model in ("familiar:v1", "familiar:adapter"):
        with pytest.raises(openai.InternalServerError) as caught:
            ask(service, model)
        assert caught.value.code == "bad_file"
        assert str(path.name) in caught.value.message
    caplog.clear()
    rule = add_rule(service, "Always use metric units.")
    for _ in range(2):
        reply = ask(service, "familiar")
        told = reply.model_extra["familiar"]
        assert (told["adapter_version"], told["memories"]) == (None, [rule["id"]])
        assert path.name in told["notice"]
        assert exchange(service, reply.id)["adapter_version"] is None
    assert len([record for record in caplog.records if path.name in record.message]) == 1
    path.write_bytes(whole)
    assert ask(service, "familiar:v1").choices[0].message.content == good


def test_an_adapter_of_another_base_model_is_not_served(service: Any, write_lora: Any) -> None:
    fine = promote(service, write_lora("one.gguf", seed=1))
    run = LearningRun(id="run-x", user_id=1, created_at=1.0, state="running", config={}, fingerprint="x")
    service.parts.store.add_run(run)
    for number, parent in ((2, 1), (3, None)):
        other = AdapterVersion(1, number, 2.0, fine.folder, parent, "0" * 64, fine.gguf_sha256, "run-x", (), {})
        service.parts.store.add_version(other, make_current=True)
        with pytest.raises(openai.InternalServerError, match="another base model"):
            ask(service, f"familiar:v{number}")
    assert "another base model" in ask(service, "familiar").model_extra["familiar"]["notice"]
    assert ask(service, "familiar:v1").model_extra["familiar"]["adapter_version"] == 1
    listed = service.http.get("/v1/adapters").json()
    assert listed["current"] is None
    assert [(each["number"], each["fits"], each["current"]) for each in listed["data"]] == [
        (1, True, False),
        (2, False, False),
        (3, False, False),
    ]


def test_what_was_served_before_a_swap_of_the_model_is_served_again_with_it(service: Any, write_lora: Any) -> None:
    fine = promote(service, write_lora("one.gguf", seed=1))
    run = LearningRun(id="run-x", user_id=1, created_at=1.0, state="running", config={}, fingerprint="x")
    service.parts.store.add_run(run)
    other = AdapterVersion(1, 2, 2.0, fine.folder, 1, "0" * 64, fine.gguf_sha256, "run-x", (), {})
    service.parts.store.add_version(other, make_current=True)
    told = ask(service, "familiar").model_extra["familiar"]
    assert (told["adapter_version"], told["notice"]) == (1, None)
    assert service.http.get("/v1/adapters").json()["current"] == 1
    assert service.http.get("/v1/status").json()["adapter_version"] == 1
    assert service.http.post("/v1/adapters/rollback").json() == {"object": "rollback", "from": 1, "to": None}
