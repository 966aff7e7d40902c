"""Directories that are replaced whole, and what a crash in between leaves."""

from pathlib import Path

import pytest

from trainer.files import replacing_directory, sweep


class CrashError(BaseException):
    """The process is gone."""


def content(path: Path) -> str:
    return (path / "a").read_text()


@pytest.mark.parametrize("k", [0, 1])
def test_a_crash_between_two_names_costs_nothing(k: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "export"
    with replacing_directory(path) as temporary:
        (temporary / "a").write_text("old")
    real, left = Path.rename, k

    def rename(self: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left < 0:
            raise CrashError
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(CrashError), replacing_directory(path) as temporary:
        (temporary / "a").write_text("new")
    monkeypatch.undo()
    sweep(tmp_path)
    assert content(path) == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["export"]


def test_an_error_while_names_change_puts_the_old_one_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "export"
    with replacing_directory(path) as temporary:
        (temporary / "a").write_text("old")
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name.startswith(".tmp-") and target == path:
            raise OSError("no")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match="no"), replacing_directory(path) as temporary:
        (temporary / "a").write_text("new")
    assert content(path) == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["export"]


def test_what_was_replaced_before_a_crash_is_removed(tmp_path: Path) -> None:
    for name in ("export", ".old-export", ".tmp-export-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text(name)
    sweep(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["export"]
    assert content(tmp_path / "export") == "export"
