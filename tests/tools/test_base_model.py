"""How the built-in model is trained: which tokens count and how much, what practice pays for, what the topics hold."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

BASE_MODEL = Path(__file__).resolve().parents[2] / "tools" / "base_model"
TOPICS = sorted((BASE_MODEL / "topics").glob("*.jsonl"))


@pytest.fixture(scope="module")
def encoder(tools: Any, model_path: Path) -> Any:
    return tools("data").Encoder(tools("import_gguf").read_tokenizer(model_path))


def counted(encoder: Any, messages: list[dict[str, str]], every_turn: bool = False) -> list[tuple[str, float]]:
    """The tokens of a conversation, as text, and how much each counts."""
    ids, weights = encoder.encode(messages, every_turn)
    return [(encoder.tokenizer.decode([i], skip_special_tokens=False), w) for i, w in zip(ids, weights, strict=True)]


def test_only_replies_count_and_what_decides_counts_more(tools: Any, encoder: Any) -> None:
    told = {"role": "user", "content": "Yes, is it red?"}
    reply = {
        "role": "assistant",
        "content": "Okay! YES, it is red. Yesterday too.",
        "given": "Okay!",
        "decides": "yes\nred",
    }
    tokens = counted(encoder, [told, reply])
    at = [text for text, _ in tokens].index("<|assistant|>")
    assert {weight for _, weight in tokens[: at + 1]} == {0.0}
    begun, said, end = tokens[at + 1 : at + 4], tokens[at + 1 : -1], tokens[-1]
    assert end == ("<|end|>", 1.0)
    assert "".join(text for text, _ in said) == reply["content"]
    assert "".join(text for text, weight in said if weight == 0) == "Okay!", begun
    decisive = "".join(text for text, weight in said if weight == tools("data").DECISIVE)
    assert decisive.split() == ["YES", "red"]  # and not the beginning of Yesterday
    assert {weight for _, weight in said} == {0.0, 1.0, tools("data").DECISIVE}
    assert {weight for _, weight in counted(encoder, [told], every_turn=True)} == {1.0}


def test_a_rows_targets_are_the_tokens_that_come_next(tools: Any, encoder: Any) -> None:
    turns = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello there.", "decides": "there"}]
    ids, weights = encoder.encode(turns, False)
    inputs, targets, weighed = encoder.row(ids, weights, 16)
    assert len(inputs) == len(targets) == len(weighed) == 16
    assert inputs[: len(ids) - 1] == ids[:-1]
    for place in range(len(ids) - 1):
        assert weighed[place] == weights[place + 1]
        assert targets[place] == (ids[place + 1] if weights[place + 1] else tools("model").IGNORED)
    assert set(targets[len(ids) - 1 :]) == {tools("model").IGNORED}
    assert set(weighed[len(ids) - 1 :]) == {0.0}
    assert [len(part) for part in encoder.row(ids, weights, 4)] == [4, 4, 4]


def test_the_loss_is_the_weighted_mean(tools: Any) -> None:
    torch.manual_seed(0)
    module = tools("model")
    model = module.Llama(module.Config(vocab=32, width=16, layers=1, heads=2, kv_heads=1, ffn=16, context=16))
    states, targets = torch.randn(2, 3, 16), torch.tensor([[1, module.IGNORED, 2], [3, 4, module.IGNORED]])
    weights = torch.tensor([[1.0, 0.0, 5.0], [1.0, 2.0, 0.0]])
    logps = (states @ model.embed_tokens.weight.T).log_softmax(-1)
    expected = -(logps[0, 0, 1] + 5 * logps[0, 2, 2] + logps[1, 0, 3] + 2 * logps[1, 1, 4]) / 9
    assert model.loss(states, targets, weights).item() == pytest.approx(expected.item(), abs=1e-5)


def test_what_a_wish_changes_decides(tools: Any) -> None:
    dialogs = tools("curriculum.dialogs")
    new = ["Max,", "boil", "pot!", "Bye"]
    assert dialogs.changed("Max, boil it all in one pot! Bye", "Boil it all in one pot.") == new
    assert dialogs.changed("BOIL IT NOW.", "Boil it now.") == []  # all of it
    plain = tools("curriculum.content").Style()
    draft = dialogs.Draft(("Put it in the pot.",), ("The pot", "Hot water"))
    assert "decides" not in dialogs.in_style(draft, plain)
    timed = dialogs.Draft(("Eat your favorite soup at {time:18:30} today.",))
    usual, asked_for = (dialogs.in_style(timed, each) for each in (plain, plain.__class__(clock24=True, british=True)))
    assert usual["decides"].splitlines() == ["favorite", "6:30", "pm"]  # or else the other form comes unasked
    assert asked_for["decides"].splitlines() == ["favourite", "18:30"]
    from_list = dialogs.in_style(draft, plain.__class__(layout="numbered"))
    assert from_list["content"] == "1. The pot\n2. Hot water"
    assert from_list["decides"].splitlines() == ["1.", "2."]


def test_a_careless_question_differs_by_a_letter_or_by_what_stands_around_it(tools: Any) -> None:
    dialogs = tools("curriculum.dialogs")
    assert {dialogs.as_typed(random.Random(seed), "yo") for seed in range(400)} > {"yo", "Hi! yo"}
    asked = "How do I boil an egg?"
    typed = {dialogs.as_typed(random.Random(seed), asked) for seed in range(400)}
    assert asked in typed
    assert asked.lower().rstrip("?") in typed
    assert any(text.endswith(asked) and text != asked for text in typed)
    careless = [text for text in typed if abs(len(text) - len(asked)) <= 1 and text.lower() != asked.lower()]
    assert len(careless) > 10
    for text in careless:
        changes = sum(a != b for a, b in zip(text, asked, strict=False))
        assert changes, text
        assert sorted(text) == sorted(asked) or abs(len(text) - len(asked)) == 1, text


def test_practice_pays_for_the_right_reply_alone(tools: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks, content = tools("curriculum.tasks"), tools("curriculum.content")
    drawn, draw = [], tasks.styled

    def noted(*given: Any) -> Any:
        drawn.append(draw(*given))
        return drawn[-1]

    monkeypatch.setattr(tasks, "styled", noted)
    rng = random.Random(0)
    right, strayed = 0.0, 0.0
    for _ in range(100):
        task = tasks.wished(rng)
        parroted = " ".join(m["content"] for m in task.messages)  # saying the wish is not following it
        assert task.reward("") == task.reward("Yes.") == task.reward(parroted) == 0
        _, draft, style = drawn[-1]
        reply = content.write(draft, style)
        right += task.reward(reply)
        assert task.reward(f"{reply} {reply}") == 0
        assert task.reward("Elephants wander through purple galaxies.") == 0
        strayed += task.reward(reply.lower() if reply != reply.lower() else reply.upper())
    assert right >= 98
    assert strayed <= 2  # what nobody asked for


def test_practice_on_facts_and_claims_pays_for_what_is_so(tools: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks, claims = tools("curriculum.tasks"), []
    ask = tasks.asked

    def noted(rng: random.Random, claim: Any, split: str) -> Any:
        claims.append(claim)
        return ask(rng, claim, split)

    monkeypatch.setattr(tasks, "asked", noted)
    unknown = 0
    for seed in range(40):
        known = tasks.known(random.Random(seed))
        everything = known.messages[0]["content"]
        rewards = known.reward("I do not know that."), known.reward(everything)
        assert sorted(rewards) == [0, 1]
        unknown += rewards == (1, 0)
        claimed = tasks.claimed(random.Random(seed))
        said = {agrees: claimed.reward(agrees + claims[-1].truth) for agrees in ("Yes, ", "No, ")}
        assert said == {"Yes, ": float(claims[-1].is_true), "No, ": float(not claims[-1].is_true)}
    assert 5 <= unknown <= 35
    assert 5 <= sum(claim.is_true for claim in claims) <= 35


@pytest.mark.parametrize("path", TOPICS, ids=lambda path: path.stem)
def test_topics_are_whole_and_their_quantities_can_be_written(tools: Any, path: Path) -> None:
    content = tools("curriculum.content")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(rows) >= 40
    for row in rows:
        assert len(row["ask"]) >= 5, row["topic"]
        assert len(row["short"]) >= 2, row["topic"]
        assert len(row["items"]) >= 3, row["topic"]
        for style in (content.Style(), content.Style(metric=True, clock24=True, date="iso", number_words=True)):
            for text in (*row["short"], *row["more"], *row["items"]):
                written = content.sentence(text, style)
                assert not set("{}") & set(written), text
        assert all(text.endswith(".") for text in (*row["short"], *row["more"])), row["topic"]


def test_the_plain_prompts_are_in_words_that_no_topic_has() -> None:
    prompts = (BASE_MODEL / "plain_prompts.txt").read_text(encoding="utf-8").splitlines()
    assert len(set(prompts)) == 60
    rows = [json.loads(line) for path in TOPICS for line in path.read_text(encoding="utf-8").splitlines()]
    asked = {bare(ask) for row in rows for ask in row["ask"]}
    assert not asked & {bare(prompt) for prompt in prompts}


def bare(text: str) -> str:
    return text.lower().rstrip("?.! ")
