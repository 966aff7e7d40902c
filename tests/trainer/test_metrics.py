"""Append-only files that resuming cuts back."""

from pathlib import Path

from trainer.report.console import printable
from trainer.report.metrics import append, cut_after


def test_lines_after_the_checkpoint_and_a_torn_line_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for step in (0, 1, 2, 3):
        append(path, {"step": step})
    path.write_bytes(path.read_bytes() + b'{"step": 2')
    cut_after(path, 2)
    assert path.read_text() == '{"step":0}\n{"step":1}\n{"step":2}\n'
    append(path, {"step": 3})
    cut_after(path, -1)
    assert path.read_text() == ""


def test_a_file_that_is_not_there_stays_away(tmp_path: Path) -> None:
    cut_after(tmp_path / "metrics.jsonl", 3)
    assert list(tmp_path.iterdir()) == []


def test_what_is_printed_cannot_steer_the_terminal() -> None:
    assert printable("a\x1b[31mb\u202ec\n字") == "a\\x1b[31mb\\u202ec\n字"
