"""Checkpoints: which of them is the newest."""

from pathlib import Path

from familiar.adapters import checkpoints


def test_the_thousandth_epoch_comes_after_the_999th(tmp_path: Path) -> None:
    wanted = [checkpoints.epoch_folder(tmp_path, number) for number in (1, 20, 999, 1000, 1001)]
    for path in reversed(wanted):
        path.mkdir()
    assert checkpoints.epoch_folders(tmp_path) == wanted
