"""What `chatloom duplicates` says of a run whose rows are written down here."""

import json
from pathlib import Path

import msgspec
import polars as pl
import pytest

from pipeline.cli import main
from pipeline.duplicates import Pair, Words, _source_names, survey
from pipeline.fates import SourceLoss
from pipeline.story import story
from schemas.settings import ConfigError
from schemas.tables import MEASURED
from tests.pipeline.literal_run import conversation, fate, removed, write_run, write_stage

CAT = "A cat sat on the mat and looked at me."
DOG = "A dog sat on the mat and looked at me."
COUNTS = {
    "rows/a.jsonl": 5,
    "rows/b.jsonl": 4,
    "rows/source:web": 120,
    "lost/a.jsonl": 2,
    "lost/b.jsonl": 2,
    "lost/source:web": 30,
    "contaminated/eval.jsonl": 1,
    "split/train": 4,
    "split/test": 1,
}


def asked(text: str) -> list[tuple[str, str]]:
    return [("user", text), ("assistant", "Yes.")]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    said = [
        [
            conversation("a.jsonl:1", asked(CAT)),
            conversation("a.jsonl:2", asked(f"{CAT} So?"), tags=["x", "source:web"]),
            conversation("a.jsonl:3", asked("What is the capital of Peru? I was asked that.")),
            conversation("a.jsonl:4", asked("Nothing like it.")),
            conversation("a.jsonl:5", asked("Only seen once.")),
        ],
        [
            conversation("b.jsonl:1", asked(CAT)),
            conversation("b.jsonl:2", asked(DOG)),
            conversation("b.jsonl:3", asked("Nothing at all like it.")),
            conversation("b.jsonl:4", asked("你好世界")),
        ],
    ]
    fates = [
        [
            fate("a.jsonl:1", "cats", 4),
            removed("a.jsonl:2", "cats", 4, "a.jsonl:1", 0.9),
            fate("a.jsonl:3", "peru", evaluation="eval.jsonl:7", overlap=0.75, split="test"),
            fate("a.jsonl:4", "nothing", 2),
            fate("a.jsonl:5", "once", evaluation="eval.jsonl:8", overlap=0.25),
        ],
        [
            removed("b.jsonl:1", "cats", 4, "a.jsonl:1", 1.0, reason="exact_duplicate"),
            removed("b.jsonl:2", "cats", 4, "a.jsonl:1", 0.8, scope="prompt"),
            removed("b.jsonl:3", "nothing", 2, "a.jsonl:4", 0.85),
            removed("b.jsonl:4", "other", 1, "old.jsonl:3", 0.95, reason="against"),
        ],
    ]
    run = write_run(tmp_path / "run", said, fates, COUNTS)
    (run / "config.toml").write_text("[clusters]\noverlap = 0.5\ncontaminated = 'report'\n")
    evaluation = [conversation("eval.jsonl:7", [("user", "Q: What is the capital of Peru?\nLima")])]
    write_stage(run / "references" / "evaluations", "length", MEASURED, [evaluation])
    write_stage(
        run / "references" / "against", "length", MEASURED, [[conversation("old.jsonl:3", asked("你好，世界"))]]
    )
    return run


def test_rows_are_counted_by_what_became_of_them(run):
    found = survey(run, top=10)
    assert found.rows == 9
    assert found.removed == {"against": 1, "exact_duplicate": 1, "near_duplicate": 3}
    assert found.n_keepers == 2
    assert found.splits == {"train": 3, "test": 1}


def test_the_largest_cluster_comes_first_with_its_least_similar_row(run):
    cats, nothing = survey(run, top=10).clusters
    assert (cats.cluster, cats.n_duplicates, cats.lowest, cats.highest) == ("cats", 4, 0.8, 1.0)
    assert cats.removed == {"near_duplicate": 2, "exact_duplicate": 1}
    assert cats.scopes == {"conversation": 2, "prompt": 1}
    assert cats.sources == {"b.jsonl": 2, "a.jsonl": 1, "source:web": 1}
    # the pair is shown by what was compared, here the first user message alone
    assert cats.least == Pair(Words("b.jsonl:2", DOG), Words("a.jsonl:1", CAT), 0.8, "near_duplicate")
    assert nothing.cluster == "nothing"


def test_of_clusters_of_one_size_the_one_with_the_less_similar_row_comes_first(tmp_path):
    ids = [f"a.jsonl:{i}" for i in range(1, 9)]
    fates = [fate(ids[i], f"c{i}", 2) for i in range(4)]
    fates += [removed(ids[4 + i], f"c{i}", 2, ids[i], similarity) for i, similarity in enumerate((0.9, 0.8, 0.9, 1.0))]
    run = write_run(tmp_path, [[conversation(id_, asked(id_)) for id_ in ids]], [fates])
    assert [cluster.cluster for cluster in survey(run, top=3).clusters] == ["c1", "c0", "c2"]
    assert [cluster.cluster for cluster in survey(run, top=99).clusters] == ["c1", "c0", "c2", "c3"]


def test_a_cluster_of_which_none_stays_is_shown_too(tmp_path, capsys):
    ids = ["a.jsonl:1", "a.jsonl:2"]
    fates = [
        fate(ids[0], "c", 2, reason="all_copies"),
        removed(ids[1], "c", 2, ids[0], 0.9, reason="all_copies"),
    ]
    run = write_run(tmp_path, [[conversation(id_, asked("x")) for id_ in ids]], [fates])
    (cluster,) = survey(run, top=1).clusters
    assert cluster.removed == {"all_copies": 2}
    assert cluster.least is not None
    assert cluster.least.other.id == ids[0]
    main(["duplicates", str(run)])
    said = capsys.readouterr().out
    assert "2 rows, similarity 0.900 (conversation), none stays: a.jsonl 2" in said
    assert "  removed  a.jsonl:1\n" in said
    for id_ in ids:
        main(["duplicates", str(run), "--id", id_])
        said = capsys.readouterr().out
        assert said.count("removed: a.jsonl:") == 2
        assert "kept: " not in said


def test_sources_are_listed_the_worst_first_and_small_ones_last(run):
    assert survey(run, top=1).sources == [
        SourceLoss("source:web", 120, 30),
        SourceLoss("b.jsonl", 4, 2),
        SourceLoss("a.jsonl", 5, 2),
    ]


def test_a_contaminated_row_is_shown_beside_the_record_that_it_contains(run):
    (found,) = survey(run, top=1).evaluations  # a.jsonl:5 has too little of its record to count
    assert (found.file, found.rows, found.records) == ("eval.jsonl", 1, 1)
    assert found.examples == [
        Pair(
            Words("a.jsonl:3", "What is the capital of Peru? I was asked that. Yes."),
            Words("eval.jsonl:7", "Q: What is the capital of Peru? Lima"),
            0.75,
            None,
        )
    ]


def test_of_rows_with_evaluation_records_those_that_contain_least_come_first(tmp_path):
    ids = [f"a.jsonl:{i}" for i in range(1, 6)]
    shares = (0.9, 0.6, 1.0, 0.6, 0.7)
    fates = [fate(id_, id_, evaluation="e.jsonl:1", overlap=share) for id_, share in zip(ids, shares, strict=True)]
    (found,) = survey(write_run(tmp_path, [[conversation(id_, asked("x")) for id_ in ids]], [fates]), top=1).evaluations
    assert [(pair.row.id, pair.share) for pair in found.examples] == [(ids[1], 0.6), (ids[3], 0.6), (ids[4], 0.7)]


def test_rows_with_evaluation_records_that_are_removed_anyway_are_told_from_those_that_stay(tmp_path, capsys):
    ids = [f"a.jsonl:{i}" for i in range(1, 4)]
    told = {"evaluation": "e.jsonl:1", "overlap": 0.9}
    fates = [fate(ids[0], "c", 2, **told), removed(ids[1], "c", 2, ids[0], 0.95, **told), fate(ids[2], "d")]
    run = write_run(tmp_path, [[conversation(id_, asked("x")) for id_ in ids]], [fates])
    (found,) = survey(run, top=1).evaluations
    assert (found.rows, found.kept, found.records) == (2, 1, 1)
    main(["duplicates", str(run)])
    out = capsys.readouterr().out
    assert "2 row(s) contain 1 record(s) of e.jsonl; 1 of the rows stay" in out
    assert "contains 0.900 of it, dropped: near_duplicate" in out
    assert "these rows stay: " in out


def test_where_no_contaminated_row_stays_there_is_nothing_to_do(tmp_path, capsys):
    row = fate("a.jsonl:1", "c", reason="contaminated", evaluation="e.jsonl:1", overlap=0.9)
    main(["duplicates", str(write_run(tmp_path, [[conversation("a.jsonl:1", asked("x"))]], [[row]]))])
    assert "none of these rows stays" in capsys.readouterr().out


def test_a_row_like_one_of_another_file_is_shown_beside_it(run):
    (found,) = survey(run, top=1).against
    assert (found.file, found.rows, found.records) == ("old.jsonl", 1, 1)
    assert found.examples == [
        Pair(Words("b.jsonl:4", "你好世界 Yes."), Words("old.jsonl:3", "你好，世界 Yes."), 0.95, "against")
    ]


def test_the_page_says_it_in_order(run, capsys):
    assert main(["duplicates", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    wanted = [
        f"{run}: 5 of 9 rows removed (55.6 %): near_duplicate 3, against 1, exact_duplicate 1",
        "2 kept rows have duplicates",
        "4 rows, similarity 0.800 to 1.000 (conversation, prompt): b.jsonl 2, a.jsonl 1, source:web 1",
        "  kept     a.jsonl:1",
        f"           {CAT}",
        "  removed  b.jsonl:2  0.800",
        f"           {DOG}",
        "lost to duplicates by source, the worst first, those of fewer than 100 rows last",
        "1 row(s) contain 1 record(s) of eval.jsonl; 1 of the rows stay",
        "  record  eval.jsonl:7",
        "  row     a.jsonl:3  contains 0.750 of it",
        "1 row(s) are similar to 1 record(s) of old.jsonl",
        "splits: train 3 (75.0 %), test 1 (25.0 %)",
    ]
    places = [lines.index(line) for line in wanted]
    assert places == sorted(places)
    (advice,) = [line for line in lines if "contaminated" in line]
    assert advice.startswith("these rows stay: look whether even the first contain the record, then set [clusters]")
    assert [line.split() for line in lines if line.startswith(("source:web ", "b.jsonl ", "a.jsonl "))] == [
        ["source:web", "30", "of", "120", "rows", "25.0", "%"],
        ["b.jsonl", "2", "of", "4", "rows", "50.0", "%"],
        ["a.jsonl", "2", "of", "5", "rows", "40.0", "%"],
    ]


def test_no_line_of_the_page_is_wider_than_it(tmp_path, capsys, monkeypatch):
    ids = ["a.jsonl:1", "a.jsonl:2"]
    said = [conversation(id_, asked("你好\n\x1b[31m" * 200)) for id_ in ids]
    run = write_run(tmp_path, [said], [[fate(ids[0], "c", 2), removed(ids[1], "c", 2, ids[0], 0.9)]])
    monkeypatch.chdir(tmp_path)  # the path of the run is printed as it is, however long
    main(["duplicates", str(run.relative_to(tmp_path))])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "  你好 \\x1b[31m你好" in out
    assert max(map(len, out.splitlines())) <= 120


def test_json_has_the_same_facts(run, capsys):
    main(["duplicates", str(run), "--top", "1", "--json"])
    assert json.loads(capsys.readouterr().out) == msgspec.to_builtins(survey(run, top=1))


def test_a_removed_row_is_shown_beside_its_keeper_word_by_word(run, capsys):
    main(["duplicates", str(run), "--id", "b.jsonl:2"])
    out = capsys.readouterr().out
    assert "dropped: near_duplicate: similar to its keeper" in out
    assert "keeper: a.jsonl:1  similarity 0.800 (prompt)" in out
    assert "cluster: cats, 4 row(s)" in out
    assert "  a.jsonl:2  near_duplicate  similarity 0.900 (conversation)" in out
    assert "the first user messages, this row's and its keeper's; what differs is between ⟦ and ⟧" in out
    assert "user: A ⟦dog⟧ sat on the mat and looked at me." in out
    assert "user: A ⟦cat⟧ sat on the mat and looked at me." in out


def test_a_row_like_one_of_against_is_not_said_to_have_a_keeper_in_the_run(run, capsys):
    main(["duplicates", str(run), "--id", "b.jsonl:4"])
    out = capsys.readouterr().out
    assert "similar to: old.jsonl:3  similarity 0.950 (conversation)" in out
    assert "against: old.jsonl:3" in out
    assert "keeper:" not in out


def test_a_keeper_is_shown_beside_the_least_similar_row_removed_for_it(run):
    found = story(run, "a.jsonl:1")
    assert found.row.reason is None
    assert [member.id for member in found.members] == ["b.jsonl:2", "a.jsonl:2", "b.jsonl:1"]
    assert found.beside is not None
    assert found.beside.id == "b.jsonl:2"
    assert found.texts == {"a.jsonl:1": [("user", CAT)], "b.jsonl:2": [("user", DOG)]}


def test_a_row_with_an_evaluation_record_is_shown_beside_it(run, capsys):
    main(["duplicates", str(run), "--id", "a.jsonl:3"])
    out = capsys.readouterr().out
    assert "kept, in test" in out
    assert "it contains 0.750 of the evaluation record eval.jsonl:7" in out
    assert "What is the capital of Peru?" in out


def test_one_row_has_json_too(run, capsys):
    main(["duplicates", str(run), "--id", "a.jsonl:4", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["members"] == [
        {
            "id": "b.jsonl:3",
            "reason": "near_duplicate",
            "keeper": "a.jsonl:4",
            "similarity": 0.85,
            "scope": "conversation",
            "split": "train",
        }
    ]


def test_a_text_that_is_not_at_hand_is_said_to_be_missing(run, capsys):
    (run / "references" / "against" / "length" / "manifest.json").unlink()
    main(["duplicates", str(run)])
    assert "(its text is not at hand)" in capsys.readouterr().out
    main(["duplicates", str(run), "--id", "b.jsonl:4"])
    assert "the text of old.jsonl:3 is not at hand" in capsys.readouterr().out


def test_a_run_without_duplicates_says_so(tmp_path, capsys):
    run = write_run(tmp_path, [[conversation("a.jsonl:1", asked("x"))], []], [[fate("a.jsonl:1", "c")], []])
    assert main(["duplicates", str(run)]) == 0
    out = capsys.readouterr().out
    assert "0 of 1 rows removed (0.0 %)" in out
    assert "largest" not in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["RUN", "--id", "a.jsonl:99"], "no row has the id 'a.jsonl:99'. Ids are <source path>:<line>"),
        (
            ["RUN", "--id", "old.jsonl:3"],
            "which 1 row(s) are similar to or contain: b.jsonl:4. Beside it: chatloom duplicates ",
        ),
        (
            ["RUN", "--id", "eval.jsonl:7"],
            "which 1 row(s) are similar to or contain: a.jsonl:3. Beside it: chatloom duplicates ",
        ),
        (["nowhere"], "not built, or not up to date; `chatloom data CONFIG --run nowhere --until clusters` builds it"),
        (["RUN", "--id", "a.jsonl:1", "--top", "3"], "give one of them"),
    ],
)
def test_a_mistake_gets_one_sentence(run, arguments, said, capsys):
    assert main(["duplicates", *(str(run) if argument == "RUN" else argument for argument in arguments)]) == 2
    assert said in capsys.readouterr().err


def test_a_run_without_rows_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no rows; `chatloom funnel"):
        survey(write_run(tmp_path, [[]], [[]]), top=1)


def test_a_row_is_of_its_file_whichever_conversation_of_a_record_it_is():
    rows = pl.DataFrame({"id": ["a:b.json:3", "a:b.json:3.12", "odd"], "tags": [[], [], ["source:wiki"]]})
    assert _source_names(rows).to_list() == ["a:b.json", "a:b.json", "source:wiki"]
