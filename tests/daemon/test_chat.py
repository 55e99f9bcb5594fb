"""The terminal chat over piped stdin, against a real service."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from familiar.daemon import local_service, settings
from familiar.daemon.client import Client
from familiar.memory.store import Store
from familiar.memory.types import Memory


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of the module's service."""
    return tmp_path_factory.mktemp("chat") / "data"


@pytest.fixture(scope="module")
def service(folder: Path, model_path: Path) -> Iterator[list[str]]:
    """A running service; the options that lead a command to it."""
    port = local_service.free_port("127.0.0.1")
    options = ["--data-dir", str(folder), "--model", str(model_path), "--threads", "1"]
    with local_service.running("127.0.0.1", port, options, folder / "logs" / "service.log"):
        yield [*options, "--port", str(port)]


def piped(options: list[str], *lines: str) -> subprocess.CompletedProcess[str]:
    """`familiar chat` with these lines of input."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("FAMILIAR_")}
    return subprocess.run(
        [sys.executable, "-m", "familiar.daemon", "chat", *options],
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=280,
        env=env | {"XDG_CONFIG_HOME": os.devnull, "PYTHONIOENCODING": "utf-8:strict"},
    )


def chat(options: list[str], *lines: str) -> str:
    """What `familiar chat` prints for these lines of input, none of which is a mistake."""
    result = piped(options, *lines)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def mistakes(options: list[str], *lines: str) -> list[str]:
    """The lines that `familiar chat` prints on stderr for these lines of input, the last of which is a mistake."""
    result = piped(options, *lines)
    assert result.returncode == 1
    said = result.stderr.splitlines()
    assert all(line.startswith("familiar: ") for line in said)
    return [line.removeprefix("familiar: ") for line in said]


def test_a_correction_is_remembered_and_used_on_the_next_request(service: list[str], folder: Path) -> None:
    wanted = "Seven minutes, Skipper."
    shown = chat(service, "How long do eggs take?", f"/fix {wanted}", "How long do eggs take now?", "/why")
    assert "Remembered" in shown
    assert shown.rindex(wanted) > shown.index("Remembered")  # /why shows the memory with its text
    assert "base model" in shown
    with Store.open(folder / "familiar.db") as store:
        latest, *_ = store.exchanges(store.default_user())
    assert latest.memory_ids
    assert [message["content"] for message in latest.messages[:2]] == [
        "How long do eggs take?",
        wanted,
    ]


def test_a_correction_of_several_lines_ends_at_a_dot(service: list[str], folder: Path) -> None:
    chat(service, "Two steps for tea?", "/fix", "Boil water.", "", "Pour it.", ".")
    with Store.open(folder / "familiar.db") as store:
        texts = [row.text for row, _ in store.feedback_rows(store.default_user())]
    assert "Boil water.\n\nPour it." in texts


def test_the_end_of_the_input_ends_a_correction_too(service: list[str]) -> None:
    assert "Pour it, then wait." in chat(service, "Two steps for tea?", "/fix", "Pour it, then wait.")


def test_a_byte_that_is_no_utf_8_does_not_end_the_chat(service: list[str]) -> None:
    assert "Remembered: The Caf\ufffd is closed.\n" in chat(service, "/remember The Caf\udce9 is closed.", "/memories")


def test_ratings_and_rules_are_stored(service: list[str], folder: Path) -> None:
    shown = chat(service, "Hello there", "/good", "/bad", "/rule Call me Skipper.")
    assert "Call me Skipper." in shown
    with Store.open(folder / "familiar.db") as store:
        rows = [row for row, _ in store.feedback_rows(store.default_user())]
        rules = [memory.text for memory in store.memories(store.default_user()) if memory.kind == "rule"]
    assert {row.rating for row in rows if row.kind == "rating"} == {1, -1}
    assert "Call me Skipper." in rules


def test_what_is_remembered_is_stated_listed_and_forgotten(service: list[str], folder: Path) -> None:
    shown = chat(
        service,
        "/remember My sister Wilhelmina lives in Ghent.",
        "/memories Wilhelmina",
        "/forget the sister Wilhelmina",
        "n",
        "/forget the sister Wilhelmina",
        "y",
        "/forget Wilhelmina",
        "/memories volcano",
    ).splitlines()
    assert shown[0] == "Remembered: My sister Wilhelmina lives in Ghent."
    assert shown[1].split()[:2] == ["id", "score"]
    assert shown[2].endswith("My sister Wilhelmina lives in Ghent.")
    assert shown[3:] == [
        "  My sister Wilhelmina lives in Ghent.",
        "Nothing was forgotten.",
        "  My sister Wilhelmina lives in Ghent.",
        "Forgotten.",
        "Nothing that is remembered holds all of these words.",
        "Nothing that is remembered has to do with it.",
    ]
    with Store.open(folder / "familiar.db") as store:
        assert all("Wilhelmina" not in memory.text for memory in store.memories(store.default_user()))


def test_a_memory_is_forgotten_by_the_beginning_of_its_id(service: list[str], folder: Path) -> None:
    with Store.open(folder / "familiar.db") as store:
        user = store.default_user()
        store.put_memory(Memory("mem-zzz12345", user, 1.0, "fact", "Oslo is where Bo lives."), 1.0)
    assert "  Oslo is where Bo lives.\nForgotten.\n" in chat(service, "/forget mem-zzz", "yes")
    unknown, empty = mistakes(service, "/forget mem-zzz", "/forget")
    assert unknown == 'No memory has an id that begins with "mem-zzz": /memories lists them.'
    assert "/forget needs an id" in empty
    assert "Nothing was forgotten." in chat(service, "/remember Bo lives in Bergen.", "/forget Bergen")  # input ends


def test_why_says_the_reason_for_each_memory(service: list[str]) -> None:
    shown = chat(service, "/rule Always answer politely.", "Hello, who are you?", "/why")
    assert re.search(r"^  mem-\w+: Always answer politely\.\n    (applies always|is pinned)$", shown, re.MULTILINE)


def test_a_guess_is_asked_about_and_answered(service: list[str], folder: Path) -> None:
    shown = chat(service, "Tell me about the sea.", "Shorter, please.", "/no")
    (question,) = re.findall("^Shall I keep to this from now on: “(.+)”\\? /yes or /no$", shown, re.MULTILINE)
    assert "Noted: I shall not." in shown
    (said,) = mistakes(service, "/yes")
    assert "There is nothing to say yes or no to" in said
    with Store.open(folder / "familiar.db") as store:
        assert store.pending(store.default_user()) == []
        assert question not in [memory.text for memory in store.memories(store.default_user())]
    shown = chat(service, "Tell me about the sea.", "No, in French, please.", "/yes")
    (question,) = re.findall("^Shall I keep to this from now on: “(.+)”\\? /yes or /no$", shown, re.MULTILINE)
    assert f"Remembered: {question}\n" in shown


def test_what_is_said_to_be_remembered_is_confirmed(service: list[str]) -> None:
    assert "Remembered: My boat is called Argo.\n" in chat(service, "Remember that my boat is called Argo.")


def test_another_model_can_be_chosen_and_a_wrong_one_is_explained(service: list[str], folder: Path) -> None:
    assert "* familiar:base" in chat(service, "/model familiar:base", "Hello", "/why", "/model")
    with Store.open(folder / "familiar.db") as store:
        latest, *_ = store.exchanges(store.default_user())
    assert (latest.model, latest.memory_ids) == ("familiar:base", ())
    for (said,) in (mistakes(service, "/model gpt-9"), mistakes([*service, "--id", "gpt-9"], "Hello")):
        assert said.startswith("gpt-9 is not one of the service's models: familiar, ")


def test_mistakes_are_explained_and_the_chat_goes_on(service: list[str]) -> None:
    lines = ("/fix too early", "/rule", "/remember", "/dance", "Hello", "/fix   ", ".", "/bad too long", "/quit", "no")
    said = mistakes(service, *lines)
    assert "There is no reply yet" in said[0]
    assert "/dance is not a command: /help lists them." in said
    assert "/bad takes no text: /fix TEXT says what you wanted" in said[-1]
    assert len(said) == 6
    result = piped(service, "/dance", "/help")  # what went well in the end did go well
    assert (result.returncode, len(result.stderr.splitlines())) == (0, 1)


def test_a_request_that_fails_is_the_status_of_a_pipe(service: list[str]) -> None:
    (said,) = mistakes(service, "word " * 3000)
    assert said.startswith("This model's maximum context length is")
    assert said.endswith(": shorten the last message, or serve with a larger context.")


def test_a_long_chat_goes_on_and_says_once_that_its_beginning_is_left_out(service: list[str], folder: Path) -> None:
    long = "Hello there, my friend, how are you today? " * 12
    shown = chat(service, *[long] * 12, "/new", *[long] * 12)
    said = re.findall("^familiar: The (\\d+) oldest messages no longer fit .*: /new starts a new", shown, re.MULTILINE)
    assert len(said) == 2
    assert all(int(left_out) >= 2 for left_out in said)
    with Store.open(folder / "familiar.db") as store:
        latest, *_ = store.exchanges(store.default_user())
    assert len(latest.messages) == 23


def test_a_new_conversation_forgets_the_old_turns(service: list[str], folder: Path) -> None:
    chat(service, "First question", "/new", "Second question")
    with Store.open(folder / "familiar.db") as store:
        latest, *_ = store.exchanges(store.default_user())
    assert [message["content"] for message in latest.messages] == ["Second question"]


def test_without_a_service_one_runs_for_the_session(data_dir: Path, model_path: Path) -> None:
    port = local_service.free_port("127.0.0.1")
    options = ["--data-dir", str(data_dir), "--model", str(model_path), "--threads", "1", "--port", str(port)]
    chat(options, "Hello")
    with Store.open(data_dir / "familiar.db") as store:
        assert len(store.exchanges(store.default_user())) == 1
    with Client(f"http://127.0.0.1:{port}") as client:
        assert client.pid() is None  # it was stopped with the session


def test_words_never_go_to_the_service_of_another_folder(service: list[str], data_dir: Path, folder: Path) -> None:
    other = ["--data-dir", str(data_dir), *service[2:]]  # the same port
    shown = chat(other, "/remember My locker code is 4711.", "/memories")
    assert shown.splitlines()[0] == "Remembered: My locker code is 4711."
    assert len(shown.splitlines()) == 3  # a header and the one memory
    held = []
    for where in (data_dir, folder):
        with Store.open(where / "familiar.db") as store:
            held.append([memory.text for memory in store.memories(store.default_user()) if "4711" in memory.text])
    assert held == [["My locker code is 4711."], []]


def test_a_folder_that_was_copied_in_use_has_no_service(service: list[str], data_dir: Path, folder: Path) -> None:
    shutil.copyfile(folder / "service.json", data_dir / "service.json")
    for where, found in ((folder, True), (data_dir, False)):
        client = local_service.find(settings.load({"data_dir": where, "port": int(service[-1])}, {}))
        assert (client is not None) == found
        if client is not None:
            client.close()


def test_a_service_that_cannot_start_is_one_line(data_dir: Path) -> None:
    options = [
        "--data-dir",
        str(data_dir),
        "--model",
        "/no/such.gguf",
        "--port",
        str(local_service.free_port("127.0.0.1")),
    ]
    command = [sys.executable, "-m", "familiar.daemon", "chat", *options]
    result = subprocess.run(command, input="Hello\n", capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr.startswith("familiar: ")
    assert len(result.stderr.splitlines()) == 1


def test_a_chat_that_is_terminated_stops_its_own_service(data_dir: Path, model_path: Path) -> None:
    port = local_service.free_port("127.0.0.1")
    options = ["--data-dir", str(data_dir), "--model", str(model_path), "--threads", "1", "--port", str(port)]
    command = [sys.executable, "-m", "familiar.daemon", "chat", *options]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with Client(f"http://127.0.0.1:{port}") as client:
        while client.pid() is None:
            assert child.poll() is None
            time.sleep(0.1)
        child.send_signal(signal.SIGTERM)
        _, said = child.communicate(timeout=120)
        assert client.pid() is None
    assert child.returncode == 130
    assert said.strip() == b""  # click ends the line, as after a typed ^C
