"""A folder is whole or absent, whatever happens while it is written."""

import errno
from pathlib import Path

import pytest

from familiar.adapters.folders import disk_errors, new_folder, read_manifest, sweep
from familiar.memory.errors import BadFile, NoSpace


def test_a_folder_carries_its_facts_and_hashes(tmp_path: Path) -> None:
    with new_folder(tmp_path / "deep" / "target", {"version": 3}) as folder:
        (folder / "a").write_text("one")
    manifest = read_manifest(tmp_path / "deep" / "target")
    assert manifest["version"] == 3
    assert list(manifest["sha256"]) == ["a"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["target"]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_nothing(tmp_path: Path, failure: type[BaseException]) -> None:
    def write_half() -> None:
        with new_folder(tmp_path / "target") as folder:
            (folder / "a").write_text("one")
            raise failure

    with pytest.raises(failure):
        write_half()
    assert not list(tmp_path.iterdir())


def test_damage_is_named(tmp_path: Path) -> None:
    with new_folder(tmp_path / "target") as folder:
        (folder / "a").write_text("one")
    (tmp_path / "target" / "a").write_text("two")
    with pytest.raises(BadFile, match="a is corrupt"):
        read_manifest(tmp_path / "target")
    (tmp_path / "target" / "a").unlink()
    with pytest.raises(BadFile, match="a is missing"):
        read_manifest(tmp_path / "target")
    (tmp_path / "target" / "manifest.json").write_text("[]")
    with pytest.raises(BadFile, match=r"no readable manifest\.json"):
        read_manifest(tmp_path / "target")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_apart(tmp_path: Path, number: int) -> None:
    with pytest.raises(NoSpace, match="The disk is full"), new_folder(tmp_path / "target"):
        raise OSError(number, "No space left on device")
    with pytest.raises(PermissionError), disk_errors(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")
    assert not list(tmp_path.iterdir())


def test_sweeping_takes_leftovers_only(tmp_path: Path) -> None:
    (tmp_path / ".v1-abc.tmp").mkdir()
    (tmp_path / ".v1-abc.tmp" / "a").write_text("half")
    (tmp_path / "v1").mkdir()
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["v1"]
