"""The committed sample is what the generator writes, and planted.json is the truth about it."""

import gzip
import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).parents[2] / "data"
SAMPLE = DATA / "sample"
PLANTED: dict[str, Any] = json.loads((DATA / "planted.json").read_text(encoding="utf-8"))
ROLES = {"human": "user", "gpt": "assistant"}


def read_lines(name: str) -> list[bytes]:
    """Return every line of a file, or every record of an array, as bytes."""
    data = (SAMPLE / name).read_bytes()
    if name.endswith(".gz"):
        data = gzip.decompress(data)
    if name.endswith(".json"):
        return [json.dumps(record).encode() for record in json.loads(data)]
    return data.removesuffix(b"\n").split(b"\n")


LINES = {
    f"data/sample/{path.name}:{n}": line for path in SAMPLE.iterdir() for n, line in enumerate(read_lines(path.name), 1)
}
BAD_IDS = {entry["id"] for kind in PLANTED["reasons"]["ingest"] for entry in PLANTED["planted"][kind]}


def messages(line: bytes) -> list[tuple[str, str]]:
    """Read a conversation of any of the sample's shapes."""
    record = json.loads(line)
    if "instruction" in record:
        question = "\n".join(filter(None, (record["instruction"], record["input"])))
        return [("user", question), ("assistant", record["output"])]
    if "prompt" in record:
        return [("user", record["prompt"]), ("assistant", record["completion"])]
    turns = record["messages"] if "messages" in record else record["conversations"]
    return [
        (turn["role"], turn["content"]) if "role" in turn else (ROLES.get(turn["from"], turn["from"]), turn["value"])
        for turn in turns
    ]


GOOD = {id_: messages(line) for id_, line in LINES.items() if line.strip() and id_ not in BAD_IDS}


def words(id_: str) -> list[str]:
    """Return the words of what user and assistant say; a Chinese character is a word."""
    said = "\n".join(content for role, content in GOOD[id_] if role != "system")
    return re.findall(r"[一-鿿]|[^\W_一-鿿]+", said.lower())


def shingles(id_: str) -> frozenset[tuple[str, ...]]:
    tokens = words(id_)
    return frozenset(zip(*(tokens[k:] for k in range(5)), strict=False)) or frozenset([tuple(tokens)])


def jaccard(left: frozenset[Any], right: frozenset[Any]) -> float:
    return len(left & right) / len(left | right)


def ids(kind: str) -> list[str]:
    return [entry["id"] for entry in PLANTED["planted"][kind]]


def test_the_generator_writes_the_committed_bytes(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, DATA / "generate.py", "--out", tmp_path / "sample"], check=True, capture_output=True
    )
    written = {path.relative_to(tmp_path): path for path in tmp_path.rglob("*") if path.is_file()}
    committed = {path.relative_to(DATA) for path in SAMPLE.iterdir()} | {Path("planted.json"), Path("held_out.jsonl")}
    assert set(written) == committed
    for name, path in written.items():
        assert path.read_bytes() == (DATA / name).read_bytes(), (
            f"{name}: run python data/generate.py and commit the result"
        )


def test_another_seed_writes_another_sample(tmp_path: Path) -> None:
    command: list[str | Path] = [sys.executable, DATA / "generate.py", "--out", tmp_path / "sample", "--seed", "1"]
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "sample/messages.jsonl").read_bytes() != (SAMPLE / "messages.jsonl").read_bytes()
    assert json.loads((tmp_path / "planted.json").read_text(encoding="utf-8"))["funnel"] == PLANTED["funnel"]


def test_planted_json_counts_what_is_in_the_files() -> None:
    for name, stated in PLANTED["files"].items():
        lines = read_lines(name)
        blank = sum(not line.strip() for line in lines)
        assert (stated["lines"], stated["records"]) == (len(lines), len(lines) - blank)
        assert stated["counts"].get("blank", 0) == blank
        assert sum(stated["counts"].values()) == len(lines)
    planted = Counter(
        entry["id"].split("/")[-1].split(":")[0] for group in PLANTED["planted"].values() for entry in group
    )
    for name, stated in PLANTED["files"].items():
        assert planted[name] == stated["records"] - stated["counts"]["plain"]


def test_the_funnel_adds_up() -> None:
    n_records = sum(stated["records"] for stated in PLANTED["files"].values())
    assert PLANTED["funnel"]["ingest"]["in"] == n_records == len(GOOD) + len(BAD_IDS)
    assert PLANTED["funnel"]["ingest"]["kept"] == PLANTED["funnel"]["length"]["in"] == len(GOOD)
    assert PLANTED["funnel"]["length"]["kept"] == PLANTED["funnel"]["dedup"]["in"]
    for stage, kinds in PLANTED["reasons"].items():
        dropped: Counter[str] = Counter()
        for kind, reason in kinds.items():
            dropped[reason] += len(ids(kind))
        assert PLANTED["funnel"][stage]["dropped"] == dropped
        assert PLANTED["funnel"][stage]["in"] - PLANTED["funnel"][stage]["kept"] == dropped.total()


def test_the_sample_is_small_and_two_thirds_english() -> None:
    assert 4000 <= len(LINES) <= 5000
    assert sum(path.stat().st_size for path in SAMPLE.iterdir()) <= 3_000_000
    chinese = sum(bool(re.search("[一-鿿]", said[0][1])) for said in GOOD.values())
    assert chinese / len(GOOD) == pytest.approx(1 / 3, abs=0.04)


def test_files_end_their_lines_in_different_ways() -> None:
    conversations = (SAMPLE / "conversations.jsonl").read_bytes()
    assert (
        conversations.count(b"\n") == conversations.count(b"\r\n") == PLANTED["files"]["conversations.jsonl"]["lines"]
    )
    assert not (SAMPLE / "alpaca.jsonl").read_bytes().endswith(b"\n")
    assert b"\r" not in (SAMPLE / "messages.jsonl").read_bytes()


def test_every_good_record_is_a_conversation_within_its_planted_length() -> None:
    bounds = PLANTED["bounds"]
    for id_, said in GOOD.items():
        roles = [role for role, _ in said if role != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2), id_
        n_chars = sum(len(content) for _, content in said)
        assert (n_chars < bounds["min_chars"]) == (id_ in ids("too_short")), id_
        assert (n_chars > bounds["max_chars"]) == (id_ in ids("too_long")), id_


def read_strictly(line: bytes) -> Any:
    """Read a line as JSON; raises KeyError when an object names a key twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise KeyError
        return dict(pairs)

    return json.loads(line.decode(), object_pairs_hook=unique)


def fault_of_turns(turns: Any) -> str:
    """Name what is wrong with a list of messages, by hand."""
    if not all(isinstance(turn, dict) for turn in turns):
        return "bad_shape"
    roles = [turn.get("role", turn.get("from")) for turn in turns]
    contents = [turn.get("content", turn.get("value")) for turn in turns]
    if any(isinstance(content, int) for content in contents):
        return "bad_shape"
    if "narrator" in roles:
        return "unknown_role"
    if not all(contents):
        return "empty_message"
    return "nothing" if {"assistant", "gpt"} & set(roles) else "no_answer"


def fault(line: bytes) -> str:
    """Name what is wrong with a line, by hand."""
    try:
        record = read_strictly(line)
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeDecodeError:
        return "bad_utf8"
    except KeyError:
        return "duplicate_key"
    except json.JSONDecodeError:
        return "bad_json"
    except UnicodeEncodeError:
        return "lone_surrogate"
    keys = {"messages", "conversations"} & set(record if isinstance(record, dict) else ())
    return fault_of_turns(record[keys.pop()]) if keys else "unknown_shape"


@pytest.mark.parametrize(("kind", "reason"), PLANTED["reasons"]["ingest"].items())
def test_malformed_lines_have_the_fault_they_are_planted_for(kind: str, reason: str) -> None:
    assert {fault(LINES[id_]) for id_ in ids(kind)} == {reason}


def test_exact_duplicates_say_the_same_elsewhere() -> None:
    for entry in PLANTED["planted"]["exact_duplicate"]:
        assert GOOD[entry["id"]] == GOOD[entry["of"]]
        assert entry["id"].split(":")[0] != entry["of"].split(":")[0]


def test_restyled_duplicates_differ_but_have_the_same_words() -> None:
    for entry in PLANTED["planted"]["restyled_duplicate"]:
        assert GOOD[entry["id"]] != GOOD[entry["of"]]
        assert words(entry["id"]) == words(entry["of"])


def test_near_duplicates_differ_in_a_word_or_two() -> None:
    for entry in PLANTED["planted"]["near_duplicate"]:
        similarity = jaccard(shingles(entry["id"]), shingles(entry["of"]))
        assert 0.85 <= similarity < 1
        assert entry["similarity"] == round(similarity, 4)


def test_no_two_other_records_are_near_duplicates() -> None:
    """Records that share a shingle are compared; all others have similarity 0."""
    pairs = {
        frozenset((entry["id"], entry["of"]))
        for kind in PLANTED["reasons"]["dedup"]
        for entry in PLANTED["planted"][kind]
    }
    sets = {id_: shingles(id_) for id_ in GOOD if id_ not in {*ids("too_short"), *ids("too_long")}}
    holders: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    unplanned = []
    for id_, own in sets.items():
        shared = Counter(other for shingle in own for other in holders[shingle])
        similar = [other for other, n in shared.items() if n / (len(own) + len(sets[other]) - n) >= 0.8]
        unplanned += [pair for other in similar if (pair := frozenset((id_, other))) not in pairs]
        for shingle in own:
            holders[shingle].append(id_)
    assert unplanned == []


def test_control_texts_are_said_in_ordinary_records() -> None:
    said = [id_ for id_, turns in GOOD.items() if any("<|" in content for _, content in turns)]
    assert sorted(said) == sorted(ids("control_text"))
    assert {token for id_ in said for _, content in GOOD[id_] for token in re.findall(r"<\|\w+\|>", content)} == {
        "<|im_start|>",
        "<|im_end|>",
        "<|endoftext|>",
    }


def test_held_out_questions_are_never_asked() -> None:
    questions = [json.loads(line) for line in (DATA / "held_out.jsonl").read_text(encoding="utf-8").splitlines()]
    asked = {content for said in GOOD.values() for role, content in said if role == "user"}
    answered = {content for said in GOOD.values() for role, content in said if role == "assistant"}
    assert len(questions) == 90
    assert not asked & {question["messages"][0]["content"] for question in questions}
    for question in questions:  # a new wording has a known answer, a new value has a new one
        assert (question["answer"] in answered) == (question["unseen"] == "wording"), question
