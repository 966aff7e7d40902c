"""Charts, and the page they stand on."""

import json
import math
import re
import time
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.metrics import Metrics
from trainer.job import read_job
from trainer.report.curves import continuous, curves, smooth
from trainer.report.page import write_report
from trainer.report.summary import closing, loss_rows, totals
from trainer.report.svg import Chart, Line, draw, log_ticks, round_ticks, standalone, thin

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m\u202e\"'&"


def metrics(step: int, **fields: Any) -> Metrics:
    given: dict[str, Any] = {"epoch": 0, "loss": None, "lr": None, "grad_norm": None, "tokens": 100 * step}
    given |= {"supervised": 40 * step, "tokens_per_s": None, "val_loss": None, "seconds": 0.5 * step}
    return Metrics(step=step, **given | fields)


def test_thinning_keeps_both_ends_and_every_extreme() -> None:
    x = np.arange(10_000.0)
    y = np.sin(x / 700)
    y[4321], y[8765] = 50.0, -50.0
    thin_x, thin_y = thin(x, y, 400)
    assert len(thin_x) <= 802
    assert (thin_x[0], thin_x[-1]) == (0, 9999)
    assert {4321.0: 50.0, 8765.0: -50.0}.items() <= dict(zip(thin_x.tolist(), thin_y.tolist(), strict=True)).items()
    assert (np.diff(thin_x) > 0).all()
    assert (y[thin_x.astype(int)] == thin_y).all()
    assert thin(x[:800], y[:800], 400)[0] is not None
    assert len(thin(x[:800], y[:800], 400)[0]) == 800


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0.93, 8.2, [2, 4, 6, 8]),
        (0, 3e-4, [0, 1e-4, 2e-4, 3e-4]),
        (21_800, 28_200, [22_000, 24_000, 26_000, 28_000]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (5, 5, [5]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert round_ticks(low, high) == pytest.approx(expected)


def test_ticks_of_a_logarithmic_axis_are_powers_with_2_and_5_between_them_where_there_is_room() -> None:
    assert log_ticks(0.3, 30) == pytest.approx([0.5, 1, 2, 5, 10, 20])
    assert log_ticks(1e-6, 1e3) == pytest.approx([1e-6, 1e-4, 1e-2, 1, 100])


def test_a_smoothed_line_is_the_mean_around_each_point() -> None:
    y = np.zeros(100)
    y[50] = 5.0
    out = smooth(y)
    assert out[48:53].tolist() == pytest.approx([1.0] * 5)
    assert out[47] == out[53] == 0
    assert smooth(np.array([3.0])).tolist() == [3.0]
    assert len(smooth(np.zeros(0))) == 0


def test_steps_of_phases_follow_each_other() -> None:
    assert continuous([0, 5, 10, 0, 4, 8, 0, 1]).tolist() == [0, 5, 10, 10, 14, 18, 18, 19]


def path_of(svg: str, look: str) -> list[tuple[float, float]]:
    (found,) = re.findall(rf'<path class="{look}" d="M([^"]+)"', svg)
    return [tuple(map(float, point.split())) for point in found.split("L")]  # type: ignore[misc]


def test_a_line_goes_where_its_numbers_say() -> None:
    """0 to 10 in x over 58 to 546, 1 to 3 in y with a margin of 5 % over 240 to 40."""
    line = Line(name="a", x=np.array([0.0, 5, 10]), y=np.array([1.0, 2, 3]))
    points = path_of(draw(Chart(title="t", unit="u", lines=(line,))), "main")
    assert points[1] == (302.0, 140.0)
    assert points[0] == (58.0, pytest.approx(240 - 200 * 0.1 / 2.2, abs=0.06))
    assert points[2] == (546.0, pytest.approx(40 + 200 * 0.1 / 2.2, abs=0.06))


def test_an_axis_is_logarithmic_when_values_are_far_apart() -> None:
    line = Line(name="a", x=np.array([0.0, 1, 2]), y=np.array([1.0, 10, 100]))
    svg = draw(Chart(title="t", unit="u", lines=(line,)))
    assert [y for _, y in path_of(svg, "main")] == [240.0, 140.0, 40.0]
    assert ">u, logarithmic<" in svg


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e30, 1e30) | st.just(0.0), max_size=30),
    st.text(max_size=20),
)
def test_whatever_is_drawn_is_xml_with_finite_numbers(values: list[float], title: str) -> None:
    title = "".join(c for c in title if c.isprintable())
    y = np.array(values)
    lines = (
        Line(name="a", x=np.arange(len(y)) * 1.0, y=y, look="points"),
        Line(name="b", x=np.zeros(0), y=np.zeros(0)),
    )
    svg = standalone({title: draw(Chart(title=title, unit="u", lines=lines))})
    ET.fromstring(svg)  # noqa: S314 - our own
    assert not re.search(r'="[^"]*\b(nan|inf)\b', svg.partition("</style>")[2].replace(title, ""))


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text('[train]\nlr = 3e-3\nclip = inf\n[[train.groups]]\npattern = "<script>"\n')
    (tmp_path / "run" / "train").mkdir(parents=True)
    return path


def test_the_page_says_what_happened_and_runs_nothing_that_samples_say(config: Path, tmp_path: Path) -> None:
    job = read_job(config, run=tmp_path / "run", overrides=[], world_size=1)
    lines = [
        metrics(
            0,
            val_loss=6.0,
            val_loss_by_source={HOSTILE: 6.5, "b.jsonl": 5.5},
            val_loss_by_tag={HOSTILE: 6.25, "other": 5.75},
        ),
        metrics(10, loss=4.0, lr=3e-3, grad_norm=2.0, tokens_per_s=200.0, val_loss=3.0, data_share=0.001, mfu=0.4),
        metrics(20, loss=2.0, lr=1e-3, grad_norm=1.0, tokens_per_s=210.0, val_loss=3.5, data_share=0.003, mfu=0.2),
    ]
    lines[1] = msgspec.structs.replace(
        lines[1], val_loss_by_source={HOSTILE: 2.5, "b.jsonl": 3.5}, val_loss_by_tag={"new": 1.75, HOSTILE: 2.75}
    )
    home = job.home
    (home / "metrics.jsonl").write_bytes(
        b"".join(msgspec.json.encode(line) + b"\n" for line in lines) + b'{"step": 21, "e'
    )
    sample = {
        "id": "a:1",
        "split": "validation",
        "prompt": HOSTILE,
        "expected": "yes",
        "is_stopped": True,
        "n_tokens": 3,
    }
    samples = [sample | {"step": step, "answer": f"{HOSTILE} at {step}"} for step in (0, 10, 20)]
    (home / "samples.jsonl").write_text("".join(json.dumps(one) + "\n" for one in samples))
    (home / "checkpoints" / "step-00000010").mkdir(parents=True)
    path = write_report(job, facts={"arithmetic": "float32 on 1 × cpu"}, parameters=["all 9 parameters learn"])

    reader = Reader()
    reader.feed(path.read_text())
    assert not reader.tags & {"script", "img", "link", "iframe", "object"}
    assert not {name for name in reader.attributes if name.startswith("on") or name in ("src", "href")}
    assert "\x1b" not in reader.text
    assert "\u202e" not in reader.text
    for said in (
        "6.0000 before training, 3.5000 after 20 steps; lowest: 3.0000 after 10",
        "403.4 before training, 33.12 after 20 steps",
        "10s of training, 200 tok/s, data 0.2% of step, MFU 30%",
        "at 0",
        "at 20",
        "train.lr0.003",
        "train.clipinf",
        'train.groups[{"pattern":"<script>"',
        "all 9 parameters learn",
        "step-000000100 B, lowest validation loss",
        "b.jsonl5.50003.5000",
        "Validation loss by tagtagstep 0step 10new1.7500",
        "6.25002.7500",
    ):
        assert said in reader.text
    assert "at 10" not in reader.text
    ET.parse(home / "curves.svg")  # noqa: S314 - our own


def test_before_anything_is_measured_there_is_a_page_too(config: Path, tmp_path: Path) -> None:
    job = read_job(config, run=tmp_path / "run", overrides=[], world_size=1)
    assert write_report(job, facts={}, parameters=[]).read_text().count("nothing measured yet") == 4


def test_a_long_run_is_drawn_in_a_moment(config: Path, tmp_path: Path) -> None:
    """Less than 50 ms on an idle machine; the best of several, and some room for a busy one."""
    job = read_job(config, run=tmp_path / "run", overrides=[], world_size=1)
    lines = [
        metrics(
            i,
            loss=1 + 7 * math.exp(-i / 900) + i % 7 / 50,
            lr=1e-3,
            grad_norm=1 + i % 11 / 9,
            tokens_per_s=9e3 + i % 13,
        )
        for i in range(10_000)
    ]
    (job.home / "metrics.jsonl").write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    seconds = []
    for _ in range(5):
        before = time.process_time()
        path = write_report(job, facts={}, parameters=[])
        seconds.append(time.process_time() - before)
    assert min(seconds) < 0.1
    assert path.stat().st_size < 150_000


def test_totals_are_of_the_whole_run_and_weigh_shares_by_time() -> None:
    found = totals(
        [
            metrics(0, val_loss=5.0),
            metrics(10, loss=3.0, val_loss=2.0, data_share=0.1, memory_bytes=7),
            metrics(40, loss=1.0, val_loss=2.5, data_share=0.02, memory_bytes=9),
        ]
    )
    assert found.data_share == pytest.approx((0.1 * 5 + 0.02 * 15) / 20)
    assert (found.first_loss, found.last_loss, found.memory_bytes) == (3.0, 1.0, 9)
    assert found.best is not None
    assert found.best.step == 10
    assert curves([]) is not None


def test_the_closing_lines_say_where_everything_is_and_what_to_do(config: Path, tmp_path: Path) -> None:
    job = read_job(config, run=tmp_path / "run", overrides=[], world_size=1)
    job = replace(job, run=Path(tmp_path / "my run"), resume=".venv/bin/chatloom train c.toml")
    (job.home / "export").mkdir(parents=True)
    (job.home / "metrics.jsonl").write_bytes(
        b"".join(
            msgspec.json.encode(line) + b"\n"
            for line in (
                metrics(0, val_loss=2.0, val_loss_by_tag={"domain:code": 3.0, "a\nb": 1.5}),
                metrics(4, loss=1.0),
                metrics(
                    9,
                    loss=1.0,
                    val_loss=1.0,
                    val_loss_by_tag={"domain:code": 1.25, "a\nb": 0.5, "other": 0.75}
                    | {f"t{i}": 1.0 for i in range(9)},
                    memory_bytes=1_250_000_000,
                ),
            )
        )
    )
    rows = {line[:15].strip(): line[17:] for line in closing(job).splitlines()}
    assert rows == {
        "training loss": "1.0000 at first, 1.0000 at last",
        "validation loss": "2.0000 before training, 1.0000 after 9 steps",
        "perplexity": "7.389 before training, 2.718 after 9 steps",
        "loss by tag": r"domain:code 1.2500 (first 3.0000), a\nb 0.5000 (first 1.5000), other 0.7500, t0 1.0000, t1 1.0000, "
        "t2 1.0000, t3 1.0000, t4 1.0000, and 4 more in metrics.jsonl",
        "tokens": "900, of them 360 trained (40%)",
        "time": "4s of training, 200 tok/s",
        "peak memory": "1.25 GB on rank 0",
        "model": str(job.home / "export"),
        "records": f"{job.home} (metrics.jsonl, samples.jsonl, checkpoints)",
        "talk to it": f".venv/bin/chatloom chat '{job.run}'",
        "answer a file": f".venv/bin/chatloom generate '{job.run}' --input prompts.jsonl",
    }


@pytest.mark.parametrize(
    ("loss", "said"), [(0.0, "1"), (1.0, "2.718"), (10.827, "50,362"), (50.0, "5.185e+21"), (800.0, "e^800")]
)
def test_a_perplexity_is_a_number_that_people_read(loss: float, said: str) -> None:
    assert loss_rows(totals([metrics(0, val_loss=loss)]))["perplexity"].startswith(f"{said} before training")
