import io

from rich.console import Console

from pipeline.counts import Section, explain, records_sentence, remarks, sections, sentence
from pipeline.funnel import as_json, as_text
from schemas.manifest import Manifest, Totals

COUNTS = {
    "tokenize": {
        "straddling/turn_start": 2,
        "rows/guarded": 0,
        "too_long": 3,
        "what_if/drop/conversations": 3,
        "what_if/drop/turns": 7,
        "what_if/drop/tokens": 9000,
        "what_if/windows/conversations": 0,
        "what_if/windows/turns": 1,
        "what_if/windows/tokens": 2100,
    },
    "mask": {
        "tokens/-/template": 300,
        "tokens/assistant/content": 470,
        "tokens/assistant/stop": 30,
        "tokens/user/content": 200,
        "trained/assistant/content": 470,
        "trained/assistant/stop": 30,
        "turns/masked_without_stop": 4,
        "turns/stopped": 1030,
        "turns/trained": 1030,
    },
}


def manifest(stage: str, counts: dict[str, int], *, tokens: int = 0, supervised: int = 0) -> Manifest:
    totals = Totals(rows_in=10, kept=10, dropped={}, tokens=tokens, supervised=supervised, counts=counts)
    return Manifest(stage=stage, key="", libraries={}, totals=totals, shards=())


def manifests(**changes: dict[str, int]) -> dict[str, Manifest]:
    counts = {name: of_stage | changes.get(name, {}) for name, of_stage in COUNTS.items()}
    return {
        "render": manifest("render", changes.get("render", {})),
        "tokenize": manifest("tokenize", counts["tokenize"], tokens=1000),
        "mask": manifest("mask", counts["mask"], tokens=1000, supervised=500),
    }


def test_tokens_are_listed_by_role_and_class_what_is_trained_first():
    trained, _, _ = sections(manifests())
    assert trained == Section(
        "tokens by who wrote them",
        ("role", "class", "tokens", "trained", "share"),
        [
            ("assistant", "content", "470", "470", "100 %"),
            ("assistant", "stop", "30", "30", "100 %"),
            ("-", "template", "300", "-", "-"),
            ("user", "content", "200", "-", "-"),
            ("all", "", "1,000", "500", "50.0 %"),
        ],
        2,
    )


def test_policies_are_compared_the_costliest_first():
    _, what_if, _ = sections(manifests())
    assert what_if.rows == [("drop", "3", "7", "9,000"), ("windows", "0", "1", "2,100")]


def test_answers_that_a_policy_cuts_are_listed_where_they_may_be_cut():
    _, what_if, others = sections(manifests(tokenize={"what_if/windows/answers": 2, "cut/answers": 2}))
    assert what_if.headings == ("policy", "conversations", "turns", "tokens", "answers cut")
    assert what_if.rows == [("drop", "3", "7", "9,000", "0"), ("windows", "0", "1", "2,100", "2")]
    text = "answer(s) of which only the beginning is kept, without a stop ([tokenize] cut_answers)"
    assert ("tokenize", text, "2") in others.rows


def test_all_else_that_is_not_0_is_listed_in_words():
    *_, others = sections(manifests(render={"notes/reasoning not written": 5, "surprises/of_a_kind": 1}))
    assert (
        "render",
        "time(s) that the template left something out (column notes): reasoning not written",
        "5",
    ) in others.rows
    assert ("render", "surprises: of a kind", "1") in others.rows
    assert ("tokenize", "conversation(s) longer than max_seq_len ([tokenize] too_long)", "3") in others.rows
    assert not [row for row in others.rows if row[2] == "0"]


def test_the_sentence_says_how_much_is_trained_and_whether_turns_end():
    assert sentence(manifests()) == (
        "trained: 50.0 % of tokens (100 % assistant); 100 % of 1,030 trained turns end on a trained stop"
    )
    almost = manifests(mask={"turns/stopped": 1029, "trained/user/content": 100, "trained/assistant/content": 370})
    assert sentence(almost) == (
        "trained: 50.0 % of tokens (80.0 % assistant, 20.0 % user); 99.90 % of 1,030 trained turns end on a trained stop"
    )
    assert sentence({"mask": manifest("mask", {})}) is None
    assert sentence({}) is None


def test_nearly_all_is_not_all():
    # a share that would be rounded up to the whole must not read as the whole
    counts = {"turns/stopped": 9_999_999, "turns/trained": 10_000_000, "trained/assistant/content": 9}
    said = sentence({"mask": manifest("mask", counts, tokens=10, supervised=9)})
    assert said is not None
    assert "99.99 % of 10,000,000" in said


def test_what_looks_wrong_is_remarked():
    found = list(remarks(manifests(render={"notes/content cut": 1, "scoped/0": 7, "scoped/1": 0})))
    assert found == [
        "note: render: 1 time(s) that the template left something out (column notes): content cut",
        "note: render: no match(es) of [[render.scoped]] rule 2; has its pattern, role or class a mistake?",
        "note: tokenize: 2 turn(s) whose first character belongs to a token that began before ([tokenize] straddling)",
        "note: mask: 4 turn(s) without a trained stop, left untrained ([mask] without_stop)",
    ]


def test_a_name_that_nobody_explained_is_made_readable():
    assert explain("what/ever_it_is") == "what: ever it is"
    assert explain("straddling") == "token(s) that begin in one span and end in another"


CLUSTERS = {
    "rows/proven": 900,  # a file of that name, not what tokenize counts
    "lost/proven": 300,
    "similarity/0.80": 200,
    "similarity/1.00": 100,
    "scope/prompt": 300,
    "contaminated/eval.jsonl": 12,
    "reason/near_duplicate": 300,
    "split/train": 580,
    "split/test": 20,
}


def test_losses_stand_in_a_table_and_what_is_said_elsewhere_in_no_table():
    losses, similar, others = sections({"clusters": manifest("clusters", CLUSTERS)})
    assert losses == Section(
        "lost to duplicates by source", ("source", "rows", "lost", "share"), [("proven", "900", "300", "33.3 %")], 1
    )
    assert similar.rows == [("1.00", "100"), ("0.80 to 0.85", "200")]
    assert others.rows == [("clusters", "row(s) removed as duplicates in scope prompt", "300")]


def test_many_sources_are_summed_up():
    counts = {f"rows/{i:02}": 200 for i in range(20)} | {f"lost/{i:02}": 100 - i for i in range(19)}
    (losses,) = sections({"clusters": manifest("clusters", counts)})
    assert losses.rows[0] == ("00", "200", "100", "50.0 %")
    assert losses.rows[14][0] == "14"
    assert losses.rows[15] == ("5 others", "1,000", "334", "33.4 %")
    assert len(losses.rows) == 16


def test_the_funnel_says_contamination_and_splits():
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(as_text({"clusters": manifest("clusters", CLUSTERS)}))
    shown = console.export_text()
    assert "12 row(s) contain records of eval.jsonl (reported; nothing is dropped for it)" in shown
    assert "splits: train 580 (96.7 %), test 20 (3.3 %)" in shown


def test_the_funnel_shows_the_tables_and_json_has_every_count():
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(as_text(manifests()))
    shown = [line.split() for line in console.export_text().splitlines()]
    assert ["assistant", "content", "470", "470", "100", "%"] in shown
    assert ["windows", "0", "1", "2,100"] in shown
    assert as_json(manifests())["stages"]["mask"]["counts"] == COUNTS["mask"]


def test_a_run_without_counts_has_just_its_funnel():
    assert list(sections({"ingest": manifest("ingest", {})})) == []


def opened(counts: dict[str, int], n: int = 10) -> dict[str, Manifest]:
    totals = Totals(rows_in=n, kept=n, dropped={}, counts=counts)
    return {"ingest": Manifest(stage="ingest", key="", libraries={}, totals=totals, shards=())}


def test_shapes_are_listed_the_most_frequent_first():
    found = opened({"records": 10, "shape/alpaca": 2, "shape/messages": 8})
    (shapes,) = sections(found)
    assert shapes == Section(
        "shapes in which records were read", ("shape", "rows"), [("messages", "8"), ("alpaca", "2")], 1
    )


def test_what_policies_changed_is_said_and_listed():
    found = opened({"records": 10, "repaired/trailing": 1984, "repaired/same_role": 3, "repaired/empty": 0})
    assert list(remarks(found)) == [
        "note: ingest: 1,984 trailing turn(s) that nothing answers, left out ([ingest] trailing)",
        "note: ingest: 3 message(s) joined to the one before, which is of the same role ([ingest] same_role)",
    ]
    (others,) = sections(found)
    assert [row[2] for row in others.rows] == ["1,984", "3"]


def test_records_are_said_where_they_are_not_the_conversations():
    assert records_sentence(opened({"records": 10})) is None
    assert records_sentence(opened({})) is None
    assert records_sentence({}) is None
    said = records_sentence(opened({"records": 4}, n=1200))
    assert said == "1,200 conversations of 4 records, for some records hold several"
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(as_text(opened({"records": 4}, n=1200)))
    assert said in console.export_text()


def test_tags_are_listed_over_all_splits_what_is_trained_most_first():
    counts = {
        "tagged/train/conversations/a/b": 3,
        "tagged/train/tokens/a/b": 900,
        "tagged/train/trained/a/b": 100,
        "tagged/validation/conversations/a/b": 1,
        "tagged/validation/tokens/a/b": 100,
        "tagged/validation/trained/a/b": 50,
        "tagged/train/conversations/x\ny": 5,
        "tagged/train/tokens/x\ny": 500,
        "tagged/train/trained/x\ny": 300,
        "tagged/train/conversations/*": 7,
        "tagged/train/tokens/*": 70,
        "tagged/train/trained/*": 7,
    }
    (tags,) = sections({"pack": manifest("pack", counts, tokens=1000, supervised=300)})
    assert tags.rows == [
        (r"x\x0ay", "5", "500", "300", "100 %"),
        ("a/b", "4", "1,000", "150", "50.0 %"),
        ("* (each rare in its shard)", "7", "70", "7", "2.3 %"),
    ]


def test_many_tags_are_not_summed_for_a_conversation_may_have_several():
    counts = {f"tagged/train/trained/t{i:02}": 20 - i for i in range(20)}
    (tags,) = sections({"pack": manifest("pack", counts, tokens=100, supervised=100)})
    assert tags.rows[14][0] == "t14"
    assert tags.rows[15:] == [("5 others", "", "", "", "")]
