"""The command line as a person meets it: a child process, its exit code, and one line for whatever goes wrong."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from familiar.adapters.folders import file_sha256
from familiar.adapters.gate import Report
from familiar.daemon import cli, local_service, model_files, settings
from familiar.memory.store import Store
from familiar.memory.types import AdapterVersion, Feedback, LearningRun, Memory

BUILTIN_SHA256 = file_sha256(model_files.builtin_path())


def familiar(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command with no configuration of the machine it runs on."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("FAMILIAR_")}
    env |= {"XDG_CONFIG_HOME": os.devnull, **environment}
    command = [sys.executable, "-m", "familiar.daemon", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=env, stdin=subprocess.DEVNULL)


def one_line(result: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """The single line that an error may print."""
    assert result.returncode == code, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("familiar: ")
    return lines[0]


def add_version(
    store: Store, data_dir: Path, number: int, *, current: bool = True, strength: float = 1.0
) -> AdapterVersion:
    """Record a version whose files are not there, as after a disk's failure."""
    run = LearningRun(f"run-{number}", store.default_user(), 1.0, "promoted", {}, "f", version=number)
    store.add_run(run)
    version = AdapterVersion(
        user_id=store.default_user(),
        number=number,
        created_at=1_700_000_000.0,
        folder=f"adapters/{store.default_user()}/v{number}",
        parent=number - 1 or None,
        base_sha256=BUILTIN_SHA256,
        gguf_sha256="1" * 64,
        run_id=run.id,
        feedback_ids=("fb-1", "fb-2"),
        report=Report(True, (), strength).to_dict(),
    )
    store.add_version(version, make_current=current)
    return version


def test_version_and_help_are_quick_to_read() -> None:
    assert re.fullmatch(r"familiar, version \d+\.\d+\.\d+\n", familiar("--version").stdout)
    shown = familiar("--help").stdout
    for command in ("serve", "chat", "learn", "adapters", "rollback", "export", "status", "demo", "memory", "rule"):
        assert re.search(rf"^  {command}\s", shown, re.MULTILINE), command


def test_the_command_line_loads_no_heavy_module() -> None:
    code = (
        "import sys, familiar.daemon.cli; "
        "print([m for m in ('torch', 'llama_cpp', 'fastapi', 'httpx', 'numpy', 'rich') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("serve", "--colour", "red"), "--colour"),
        (("sing",), "No such command 'sing'"),
        (("inbox", "sing"), "No such command 'sing'"),
        (("inbox", "status", "x"), "extra argument (x). See `familiar inbox status --help`."),
        (("serve", "--port", "high"), "'high' is not a valid integer"),
        (("rule",), "Missing argument 'TEXT'"),
        (("export", "--format", "onnx", "--out", "x"), "'onnx' is not one of"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(arguments: tuple[str, ...], said: str) -> None:
    assert said in one_line(familiar(*arguments), code=2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("draft", " "), "The request is empty"),
        (("draft", "An e-mail", "-o", "-"), "-o takes a file"),
        (("memory", "show", ""), "The id of the memory is empty"),
        (("memory", "list", "--config", "/dev/null/config.toml"), "/dev/null/config.toml"),
    ],
)
def test_what_says_nothing_is_refused_in_one_line(arguments: tuple[str, ...], said: str, data_dir: Path) -> None:
    assert said in one_line(familiar(*arguments, "--data-dir", str(data_dir)))


def test_an_unexpected_error_is_one_line_unless_debugging(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(flags: object) -> None:
        raise KeyError("a mistake\nof ours")

    monkeypatch.setattr(settings, "load", broken)
    monkeypatch.delenv("FAMILIAR_DEBUG", raising=False)
    with pytest.raises(SystemExit) as ended:
        cli.main(["status"])
    assert ended.value.code == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("familiar: unexpected KeyError: ")
    assert "FAMILIAR_DEBUG=1" in said[0]
    monkeypatch.setenv("FAMILIAR_DEBUG", "1")
    with pytest.raises(KeyError):
        cli.main(["status"])


def test_a_data_folder_that_cannot_be_made_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for command in ("status", "adapters", "learn", "serve"):
        assert "cannot be made" in one_line(familiar(command, "--data-dir", str(tmp_path / "file" / "data")))


def test_a_setting_that_cannot_be_used_is_named(data_dir: Path) -> None:
    said = one_line(familiar("status", "--data-dir", str(data_dir), FAMILIAR_PORT="many"))
    assert "FAMILIAR_PORT" in said


def test_a_port_in_use_is_said_in_one_line(data_dir: Path, model_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = familiar("serve", "--port", port, "--data-dir", str(data_dir), "--model", str(model_path))
    assert port in one_line(result)


def test_a_model_that_is_not_gguf_is_said_in_one_line(data_dir: Path, tmp_path: Path) -> None:
    text = tmp_path / "model.gguf"
    text.write_text("not a model", encoding="utf-8")
    said = one_line(familiar("serve", "--port", "0", "--data-dir", str(data_dir), "--model", str(text)))
    assert "is not a GGUF file" in said


def test_a_file_that_is_no_database_is_said_in_one_line(data_dir: Path) -> None:
    (data_dir / "familiar.db").write_bytes(b"nothing like a database" * 100)
    assert "familiar.db" in one_line(familiar("memory", "list", "--data-dir", str(data_dir)))


def test_an_empty_rule_is_refused(data_dir: Path) -> None:
    one_line(familiar("rule", "   ", "--data-dir", str(data_dir)))


def test_a_reader_that_goes_away_is_no_error(data_dir: Path) -> None:
    with Store.open(data_dir / "familiar.db") as store:
        user = store.default_user()
        texts = [f"rule {number} {'x' * 80}" for number in range(2000)]  # more than a pipe holds
        memories = [Memory(f"mem-{n}", user, 1.0, "rule", text, feedback_id="fb-1") for n, text in enumerate(texts)]
        store.add_feedback(Feedback("fb-1", user, 1.0, "rule", text="many"), memories)
    command = f"{sys.executable} -m familiar.daemon memory list --data-dir {data_dir} | head -n 1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert result.stdout.startswith("id ")
    assert result.stderr == ""


def test_adapters_and_rollback_before_and_after_versions(data_dir: Path) -> None:
    where = ("--data-dir", str(data_dir))
    assert "No adapter yet" in familiar("adapters", *where).stdout
    with Store.open(data_dir / "familiar.db") as store:
        add_version(store, data_dir, 1)
        add_version(store, data_dir, 2, strength=0.9)
    shown = familiar("adapters", *where).stdout
    assert re.search(r"^  \* v2 .* 2 .*  passed at 90%$", shown, re.MULTILINE), shown
    assert re.search(r"^    v1 .*  passed$", shown, re.MULTILINE), shown
    assert "another model" not in shown
    assert "Serving the base model now, v2 before." in familiar("rollback", "--to", "base", *where).stdout
    assert "* base" in familiar("adapters", *where).stdout
    one_line(familiar("rollback", "--to", "v9", *where))
    one_line(familiar("rollback", "--to", "latest", *where))


def test_a_version_whose_files_are_gone_is_neither_served_nor_exported(data_dir: Path, tmp_path: Path) -> None:
    where = ("--data-dir", str(data_dir))
    with Store.open(data_dir / "familiar.db") as store:
        add_version(store, data_dir, 1, current=False)
    one_line(familiar("rollback", "--to", "1", *where))
    one_line(familiar("export", "--format", "gguf", "--out", str(tmp_path / "out.gguf"), "--version", "1", *where))
    assert not (tmp_path / "out.gguf").exists()
    one_line(familiar("export", "--format", "gguf", "--out", str(tmp_path / "out.gguf"), *where))
    with Store.open(data_dir / "familiar.db") as store:
        assert store.current_version(store.default_user()) is None


def test_an_export_makes_no_folders(data_dir: Path, tmp_path: Path) -> None:
    for form in ("gguf", "peft"):
        out = tmp_path / "none" / "mine.gguf"
        said = one_line(familiar("export", "--format", form, "--out", str(out), "--data-dir", str(data_dir)))
        assert "its folder is not there" in said
        assert not out.parent.exists()


def test_learning_needs_corrections(data_dir: Path) -> None:
    said = one_line(familiar("learn", "--data-dir", str(data_dir)))
    assert "at least 4 corrections but has 0" in said


def test_status_with_and_without_a_service(data_dir: Path, model_path: Path) -> None:
    where = ("--data-dir", str(data_dir))
    assert "not running" in familiar("status", *where).stdout
    port = local_service.free_port("127.0.0.1")
    arguments = [*where, "--model", str(model_path), "--threads", "1"]
    with local_service.running("127.0.0.1", port, arguments, data_dir / "service.log"):
        facts = json.loads(familiar("status", "--json", *where).stdout)
        assert facts["running"]
        assert facts["url"] == f"http://127.0.0.1:{port}/v1"
        assert 0 < facts["rss_minus_model_bytes"] < facts["rss_bytes"]
        assert f"pid {facts['pid']}" in familiar("status", *where).stdout
        other = ("--data-dir", str(data_dir.parent / "other"), "--port", str(port))
        facts = json.loads(familiar("status", "--json", *other).stdout)
        assert (facts["running"], facts["data_dir"]) == (False, other[1])
    assert not json.loads(familiar("status", "--json", *where).stdout)["running"]


def test_ctrl_c_ends_the_service_without_a_traceback(data_dir: Path, model_path: Path) -> None:
    port = local_service.free_port("127.0.0.1")
    command = [sys.executable, "-m", "familiar.daemon", "serve", "--port", str(port), "--data-dir", str(data_dir)]
    with subprocess.Popen(
        [*command, "--model", str(model_path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as child:
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            child.send_signal(signal.SIGINT)
            output, _ = child.communicate(timeout=30)
        finally:
            child.kill()
    assert b"Traceback" not in output
    assert child.returncode in (0, 130)
