"""What is noticed in what a plain OpenAI client sends: through the openai client, over HTTP, with the real engine."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from familiar.daemon.edit_reader import MAX_ALIKE
from familiar.daemon.engine import Engine
from familiar.daemon.schemas_chat import ChatRequest
from familiar.daemon.signal_service import Noticed, SignalService
from familiar.memory.errors import Busy
from familiar.memory.types import Exchange, Message
from familiar.memory.users import new_key

Turns = list[dict[str, Any]]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def ask(service: Any, messages: Turns, **fields: Any) -> Any:
    given = {"model": "familiar", "max_tokens": 8, "temperature": 0, **fields}
    return service.openai.chat.completions.create(messages=messages, **given)


def told(reply: Any) -> dict[str, Any]:
    return dict(reply.model_extra["familiar"])


def text_of(reply: Any) -> str:
    return str(reply.choices[0].message.content)


def memories(service: Any) -> list[dict[str, Any]]:
    return list(service.http.get("/v1/memories").json()["data"])


def pending(service: Any) -> list[dict[str, Any]]:
    return list(service.http.get("/v1/feedback", params={"state": "pending"}).json()["data"])


def feedback(service: Any, user_id: int = 1) -> list[Any]:
    return [signal for signal, _ in service.parts.store.feedback_rows(user_id)]


def exchange(service: Any, reply: Any) -> dict[str, Any]:
    return dict(service.http.get(f"/v1/exchanges/{reply.id}").json())


def talk(service: Any, *turns: str, **fields: Any) -> tuple[Turns, Any]:
    """Say each turn in one conversation; the whole history and the last reply."""
    history: Turns = []
    reply = None
    for turn in turns:
        history.append(user(turn))
        reply = ask(service, history, **fields)
        history.append(said(text_of(reply)))
    return history, reply


def notice(service: Any, messages: Turns) -> Noticed:
    """What is noticed in a request by a service that was just started."""
    request = ChatRequest.model_validate({"model": "familiar", "messages": messages})
    signals = SignalService(service.parts.store, time.time)
    return signals.notice(1, request, [each.message for each in request.messages])


# Edits


def test_an_edited_reply_is_a_correction_at_once_and_once(service: Any) -> None:
    history, _ = talk(service, "Where does my sister live?")
    edited = text_of_edit(history)
    history[1] = said(edited)
    replies = [ask(service, [*history, user("Where does my sister live, please?")])]
    for question in ("And what is there to see?", "Thank you. What else?"):
        history += [user(question)]
        replies.append(ask(service, history))
        history.append(said(text_of(replies[-1])))
    (memory,) = memories(service)
    assert (memory["kind"], memory["prompt"], memory["text"]) == ("example", "Where does my sister live?", edited)
    assert memory["source"] == "history"
    assert told(replies[0])["memories"] == [memory["id"]]
    assert [each["id"] for each in told(replies[0])["learned"]] == [memory["id"]]
    assert told(replies[1])["learned"] == told(replies[2])["learned"] == []
    (signal,) = feedback(service)
    assert (signal.kind, signal.text, signal.source, signal.trust) == ("correction", edited, "history", "inferred")


def text_of_edit(history: Turns) -> str:
    """The first reply with its last word changed."""
    return " ".join([*history[1]["content"].split()[:-1], "Trondheim."])


def test_a_later_edit_of_the_same_turn_takes_the_place_of_the_first(service: Any) -> None:
    history, _ = talk(service, "Where does my sister live?")
    first = text_of_edit(history)
    second = first.replace("Trondheim", "Bergen")
    for edit in (first, second):
        ask(service, [history[0], said(edit), user("And what is there to see?")])
    assert [memory["text"] for memory in memories(service)] == [second]
    assert len(feedback(service)) == 2


def test_a_correction_that_a_client_shows_is_no_second_one(service: Any) -> None:
    history, reply = talk(service, "Where does my sister live?")
    history[1] = said(text_of_edit(history))
    service.http.post("/v1/feedback", json={"completion_id": reply.id, "correction": history[1]["content"]})
    assert told(ask(service, [*history, user("And what is there to see?")]))["learned"] == []
    assert [signal.source for signal in feedback(service)] == ["api"]


def test_where_very_many_replies_were_given_none_can_be_told_to_be_edited(service: Any) -> None:
    hello = user("Hello")
    for number in range(MAX_ALIKE):
        if number == MAX_ALIKE - 1:
            edited = [hello, said("Hello friend, how are you this evening?"), user("Fine.")]
            assert len(notice(service, edited).learned) == 1
        given = f"Hello friend {number}, how are you today?"
        message = Message(role="user", content="Hello")
        service.parts.store.add_exchange(Exchange(f"chatcmpl-{number}", 1, 1.0, "familiar", (message,), given))
    edited = [hello, said("Hello friend, how are you this afternoon?"), user("Fine.")]
    assert notice(service, edited).learned == ()


def test_an_edit_far_back_is_found_also_after_a_restart(
    data_dir: Path, engine: Engine, serve: Callable[..., Any]
) -> None:
    with serve(data_dir, engine) as service:
        history, _ = talk(service, "Where does my sister live?", "What is there to see?", "And to eat?")
        assert feedback(service) == []
    history[1] = said(text_of_edit(history))
    with serve(data_dir, engine) as service:
        learned = told(ask(service, [*history, user("Anything else?")]))["learned"]
        assert [memory["text"] for memory in learned] == [history[1]["content"]]
        assert told(ask(service, [*history, user("Anything more?")]))["learned"] == []


def test_what_was_forgotten_is_not_read_again_from_the_clients_copy(service: Any) -> None:
    history, _ = talk(service, "Where does my sister live?")
    sent = [history[0], said(text_of_edit(history)), user("From now on, be brief.")]
    ask(service, sent)
    assert len(memories(service)) == 2
    for memory in memories(service):
        service.http.delete(f"/v1/memories/{memory['id']}")
    assert told(ask(service, sent))["learned"] == memories(service) == []
    assert notice(service, sent).learned == ()


def test_any_of_several_choices_may_come_back(service: Any) -> None:
    reply = ask(service, [user("Tell me of the sea.")], n=3, temperature=1.5, seed=4)
    for choice in reply.choices:
        ask(service, [user("Tell me of the sea."), said(choice.message.content), user("And of the hills?")], seed=1)
    assert feedback(service) == []


def test_what_a_client_cut_or_another_model_said_is_no_edit(service: Any) -> None:
    history, _ = talk(service, "Tell me of the sea.", max_tokens=24)
    whole = history[1]["content"]
    for text in (f"  {whole}\n", whole[: len(whole) // 2], "Blue, wide, wet, and full of fish of every kind there is."):
        assert told(ask(service, [history[0], said(text), user("And of the hills?")], seed=1))["learned"] == []
    assert feedback(service) == []
    assert memories(service) == []


def test_what_a_tool_or_a_page_said_is_not_stored_as_the_users_words(service: Any) -> None:
    history, _ = talk(service, "Tell me of the sea.", max_tokens=24)
    page = "the survey of the ministry counted 2,830 ships in the northern harbours last year"
    edited = said(f"{history[1]['content']} And {page}.")
    question = user(f"What do you say to this?\n> {page}")
    assert told(ask(service, [history[0], edited, question], seed=1))["learned"] == []
    # The built-in model knows no tools, so the request is not sent, but noticed all the same.
    call = {"id": "call-1", "type": "function", "function": {"name": "sea", "arguments": "{}"}}
    tool = {"role": "tool", "content": f"Result: {page}.", "tool_call_id": "call-1"}
    sent = [history[0], {"role": "assistant", "content": "", "tool_calls": [call]}, tool, edited, user("Thanks")]
    assert notice(service, sent).learned == ()
    assert feedback(service) == []


def test_what_a_memory_brought_into_an_edit_is_not_learned_again(service: Any) -> None:
    fact = "The survey of the ministry counted 2,830 ships in the northern harbours last year"
    service.http.post("/v1/memories", json={"text": fact, "scope": "always"})
    history, reply = talk(service, "Tell me of the sea.", max_tokens=24)
    assert len(told(reply)["memories"]) == 1
    history[1] = said(f"{history[1]['content']} {fact}.")
    assert told(ask(service, [*history, user("And of the hills?")], seed=1))["learned"] == []
    assert feedback(service) == []


# Regenerations


def test_a_reply_asked_for_again_counts_against_the_one_before(service: Any) -> None:
    history, first = talk(service, "Tell me of the sea.")
    for _ in range(3):
        ask(service, history[:1], temperature=1)
    signals = feedback(service)
    assert {signal.kind for signal in signals} == {"regeneration"}
    assert signals[0].exchange_id == first.id
    assert len({signal.exchange_id for signal in signals}) == len(signals) == 3
    assert all((signal.rating, signal.trust, signal.text) == (-1, "inferred", None) for signal in signals)
    assert memories(service) == []


def test_what_is_no_regeneration(service: Any) -> None:
    others: list[dict[str, Any]] = [
        {"model": "familiar:base"},
        {"model": "familiar:memory"},
        {"seed": 3},
        {"n": 2, "temperature": 1},
        {"messages": [{"role": "system", "content": "Be brief."}, user("Tell me of the sea 4.")]},
    ]
    for number, fields in enumerate(others):
        first = [user(f"Tell me of the sea {number}.")]
        ask(service, first)
        ask(service, **{"messages": first, **fields})
    assert feedback(service) == []


def test_hello_in_a_new_conversation_asks_for_no_other_reply(service: Any) -> None:
    history, _ = talk(service, "Good morning!")
    ask(service, [*history, user("In this chat, call me Captain.")])
    (rule,) = memories(service)
    assert rule["scope"] == "conversation"
    again = ask(service, history[:1])
    assert told(again)["memories"] == []
    assert [signal.kind for signal in feedback(service)] == ["rule"]


def test_a_reply_that_was_corrected_is_not_asked_again_in_vain(service: Any) -> None:
    history, reply = talk(service, "Where does my sister live?")
    service.http.post("/v1/feedback", json={"completion_id": reply.id, "correction": "In Oslo."})
    again = ask(service, history[:1])
    assert told(again)["memories"]
    assert [signal.kind for signal in feedback(service)] == ["correction"]
    ask(service, [history[0], said("In Oslo."), user("What is there to see?")])
    assert [signal.kind for signal in feedback(service)] == ["correction"], "the client shows the correction"


# Rebuttals


def test_a_rebuttal_waits_for_a_yes(service: Any) -> None:
    history, reply = talk(service, "Tell me of the sea.")
    told_now = told(ask(service, [*history, user("shorter please")]))
    (guess,) = pending(service)
    assert told_now["pending"] == [{"id": guess["id"], "text": "Keep replies short."}]
    assert (guess["kind"], guess["state"], guess["completion_id"]) == ("rebuttal", "pending", reply.id)
    assert told_now["learned"] == told_now["memories"] == memories(service) == []
    settled = service.http.post(f"/v1/feedback/{guess['id']}/confirm").json()
    (memory,) = settled["memories"]
    assert (settled["state"], memory["text"], memory["kind"]) == ("active", "Keep replies short.", "rule")
    assert told(ask(service, [user("What is a harbour?")]))["memories"] == [memory["id"]]
    assert pending(service) == []
    again = service.http.post(f"/v1/feedback/{guess['id']}/confirm")
    assert (again.status_code, again.json()["error"]["param"]) == (400, "feedback_id")


def test_a_rebuttal_may_be_confirmed_in_other_words(service: Any) -> None:
    history, _ = talk(service, "Tell me of the sea.")
    ask(service, [*history, user("no, I meant the Black Sea")])
    (guess,) = pending(service)
    assert guess["text"] == 'When asked "Tell me of the sea.": I meant the Black Sea.'
    url = f"/v1/feedback/{guess['id']}/confirm"
    assert service.http.post(url, json={"text": " "}).json()["error"]["param"] == "text"
    (memory,) = service.http.post(url, json={"text": "By the sea I mean the Black Sea."}).json()["memories"]
    assert memory["text"] == "By the sea I mean the Black Sea."


def test_a_rebuttal_said_again_in_another_conversation_confirms_itself(service: Any) -> None:
    history, _ = talk(service, "Tell me of the sea.")
    ask(service, [*history, user("too long")])
    ask(service, [*history, user("too long")])
    ask(service, [*history, user("too long"), said("The sea is wide."), user("shorter please")])
    assert len(pending(service)) == 1, "the same conversation is no second opinion"
    other, _ = talk(service, "Tell me of the hills.")
    reply = ask(service, [*other, user("Can you make it shorter?")])
    (memory,) = memories(service)
    assert memory["text"] == "Keep replies short."
    assert [each["id"] for each in told(reply)["learned"]] == told(reply)["memories"] == [memory["id"]]
    assert told(reply)["pending"] == pending(service) == []


def test_a_dismissed_rebuttal_is_not_guessed_again(service: Any) -> None:
    history, _ = talk(service, "Tell me of the sea.")
    ask(service, [*history, user("shorter please")])
    (guess,) = pending(service)
    settled = service.http.post(f"/v1/feedback/{guess['id']}/dismiss").json()
    assert (settled["state"], settled["memories"]) == ("dismissed", [])
    other, _ = talk(service, "Tell me of the hills.")
    reply = ask(service, [*other, user("Too long.")])
    assert told(reply)["pending"] == pending(service) == memories(service) == []


def test_unknown_guesses(service: Any) -> None:
    for answer in ("confirm", "dismiss"):
        assert service.http.post(f"/v1/feedback/fb-none/{answer}").status_code == 404
    assert service.http.get("/v1/feedback", params={"state": "other"}).status_code == 400
    assert service.http.get("/v1/feedback").json()["error"]["param"] == "state"


# Said in the chat


def test_what_is_said_to_be_remembered_counts_at_once(service: Any) -> None:
    reply = ask(service, [user("Remember that my sister is called Ann.")])
    (memory,) = memories(service)
    assert (memory["kind"], memory["text"], memory["source"]) == ("fact", "My sister is called Ann.", "chat")
    assert told(reply)["memories"] == [memory["id"]]
    assert told(reply)["learned"] == [
        {
            "feedback_id": memory["feedback_id"],
            "id": memory["id"],
            "kind": "fact",
            "text": "My sister is called Ann.",
            "prompt": None,
        }
    ]
    history = [user("Remember that my sister is called Ann."), said(text_of(reply)), user("What is she called?")]
    assert told(ask(service, history))["learned"] == []
    (signal,) = feedback(service)
    assert (signal.kind, signal.trust, signal.source) == ("rule", "stated", "chat")


def test_a_regenerated_statement_is_stored_once(service: Any) -> None:
    for _ in range(2):
        ask(service, [user("From now on, answer in one word.")])
    assert [signal.kind for signal in feedback(service)] == ["rule", "regeneration"]
    assert [memory["text"] for memory in memories(service)] == ["Answer in one word."]


def test_what_is_said_again_later_is_the_latest_word(service: Any) -> None:
    for rule in ("Use metric units.", "Use imperial units.", "Use metric units."):
        ask(service, [user(f"From now on, {rule[0].lower()}{rule[1:]}")])
    states = {memory.text: memory.state for memory in service.parts.store.memories(1, states=("active", "superseded"))}
    assert states == {"Use metric units.": "active", "Use imperial units.": "superseded"}


def test_for_this_conversation_is_for_no_other(service: Any) -> None:
    history, reply = talk(service, "In this chat, call me Captain.")
    (memory,) = memories(service)
    assert (memory["scope"], memory["text"]) == ("conversation", "Call me Captain.")
    assert memory["conversation_id"] == exchange(service, reply)["conversation_id"]
    assert told(reply)["memories"] == [memory["id"]]
    assert told(ask(service, [*history, user("What is a harbour?")]))["memories"] == [memory["id"]]
    assert told(ask(service, [user("What is a harbour?")]))["memories"] == []


def test_questions_and_pasted_text_are_not_stored(service: Any) -> None:
    for message in (
        "Do you remember that my sister is called Ann?",
        "Translate into French: Remember that I love you.",
        "What does this mail say?\n\nFrom: Ann\nSubject: Us\n\nRemember that I moved to Oslo.",
        "> From now on, answer in French.\nWho said that?",
        "Is this right?\n```\n# From now on, always use tabs.\n```",
    ):
        assert told(ask(service, [user(message)]))["learned"] == []
    assert memories(service) == feedback(service) == []


# Nothing where nothing is said


ORDINARY = (
    "Hello there, how are you?",
    "What is the capital of France?",
    "And of Italy?",
    "No, thanks. How long is the Nile?",
    "Write a short poem about it, please.",
    "Nice! Can you explain the second line?",
    "Okay. What should I cook tonight?",
    "I have eggs, rice and an onion.",
    "How long does it take?",
    "Great, thank you. Good night!",
)


def test_an_ordinary_conversation_creates_no_feedback(service: Any) -> None:
    history: Turns = [{"role": "system", "content": "You are kind."}]
    for number, turn in enumerate(ORDINARY):
        history.append(user(turn))
        if number % 2:
            reply = ask(service, history)
            text, extension = text_of(reply), told(reply)
        else:
            chunks = list(ask(service, history, stream=True))
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            extension = chunks[0].model_extra["familiar"]
        assert extension["learned"] == extension["pending"] == []
        history.append(said(text.strip()))
    counts = service.http.get("/v1/status").json()["counts"]
    assert (counts["exchanges"], counts["feedback"], counts["memories"]) == (10, 0, 0)
    assert pending(service) == []
    conversations = {each.conversation_id for each in service.parts.store.exchanges(1)}
    assert len(conversations) == 1


def test_the_plain_model_notices_nothing(service: Any) -> None:
    model = "familiar:base"
    history, _ = talk(service, "Where does my sister live?", model=model)
    ask(service, [history[0], said(text_of_edit(history)), user("Remember that I like tea.")], model=model)
    ask(service, [*history, user("shorter please")], model=model)
    ask(service, [history[0]], model=model)
    assert feedback(service) == pending(service) == memories(service) == []


def test_it_can_be_turned_off(data_dir: Path, engine: Engine, serve: Callable[..., Any]) -> None:
    with serve(data_dir, engine, memory_signals="off") as service:
        history, _ = talk(service, "Remember that I like tea.")
        ask(service, [*history, user("shorter please")])
        ask(service, [history[0]])
        assert feedback(service) == pending(service) == memories(service) == []


def test_another_users_history_says_nothing(service: Any) -> None:
    users = service.parts.store.users
    my_key, her_key = new_key(), new_key()
    ann = users.add("ann", her_key, 1.0)
    users.add_key(1, my_key, 1.0, replace=False)
    mine, hers = (service.openai.with_options(api_key=key) for key in (my_key, her_key))
    first = mine.chat.completions.create(
        model="familiar", messages=[user("Where does my sister live?")], max_tokens=8, temperature=0
    )
    edited = text_of_edit([{}, said(text_of(first))])
    sent = [user("Where does my sister live?"), said(edited), user("Remember that I like tea.")]
    hers.chat.completions.create(model="familiar", messages=sent, max_tokens=4)
    assert [signal.kind for signal in feedback(service, ann.id)] == ["rule"], "it was not she who was answered so"
    assert feedback(service, 1) == []
    assert service.parts.store.memories(1) == []


def test_a_signal_that_cannot_be_stored_costs_no_reply(
    service: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise Busy("The store is held by another process.")

    monkeypatch.setattr(service.parts.store, "add_feedback", refuse)
    monkeypatch.setattr(service.parts.store, "replies_at", refuse)
    history, reply = talk(service, "Remember that I like tea.", "shorter please")
    assert text_of(reply)
    assert len(history) == 4
    lines = [record.getMessage() for record in caplog.records]
    assert any("statement was not noticed: The store is held" in line for line in lines)
    assert all("\n" not in line for line in lines)


def test_it_costs_an_ordinary_request_little(service: Any) -> None:
    store, notices = service.parts.store, SignalService(service.parts.store, time.time)
    history, _ = talk(service, *ORDINARY)
    taken = []
    for number in range(60):
        sent = [*history, user(f"What is {number} and one?")]
        request = ChatRequest.model_validate({"model": "familiar", "messages": sent})
        messages = [each.message for each in request.messages]
        begun = time.perf_counter()
        notices.notice(1, request, messages)
        taken.append(time.perf_counter() - begun)
    assert store.counts(1)["feedback"] == 0
    assert sorted(taken)[len(taken) // 2] < 0.002
