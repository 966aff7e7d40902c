"""Near-duplicates by cosine, against numbers worked out by hand, numbers of scikit-learn 1.9 and a dense double."""

import math
import re
from collections import Counter, defaultdict
from itertools import combinations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stages.cosine as cosine
from stages.cosine import TooLargeError, near_texts, normalise

WORDS = ("river", "cloud", "engine", "holds", "turns", "the", "a", "of", "河", "云")


def row_pairs(texts, threshold):
    """Return {(row, row): similarity} of all rows, equal texts included."""
    near = near_texts(pl.Series(texts, dtype=pl.String), threshold=threshold)
    members = defaultdict(list)
    for row, group in enumerate(near.groups):
        if group is not None:
            members[group].append(row)
    pairs = {pair: 1.0 for rows in members.values() for pair in combinations(rows, 2)}
    for a, b, similarity in near.pairs.iter_rows():
        assert a < b
        pairs |= {(min(i, j), max(i, j)): similarity for i in members[a] for j in members[b]}
    return pairs


def dense(texts, threshold):
    """Return the same by comparing every row with every other, as its definition says."""
    rows = {row: text for row, text in enumerate(texts) if text}
    plain = {row: re.sub(r"\s\s+", " ", re.sub(r"[^\w\s]", "", text.lower())) for row, text in rows.items()}
    counts = {
        row: Counter(text[i : i + n] for n in (1, 2, 3) for i in range(len(text) - n + 1))
        for row, text in plain.items()
    }
    df = Counter(gram for grams in counts.values() for gram in grams)
    vectors = {
        row: {gram: n * (math.log((1 + len(rows)) / (1 + df[gram])) + 1) for gram, n in grams.items()}
        for row, grams in counts.items()
    }
    lengths = {row: math.sqrt(sum(w * w for w in vector.values())) for row, vector in vectors.items()}
    pairs = {}
    for a, b in combinations([row for row in rows if len(rows[row]) > 1 and plain[row].strip()], 2):
        product = sum(w * vectors[b].get(gram, 0) for gram, w in vectors[a].items()) / lengths[a] / lengths[b]
        if product > threshold:
            pairs[a, b] = product
    return pairs


def test_the_cosine_of_two_texts_is_the_one_worked_out_by_hand():
    # "aa": 2 of a, 1 of aa; "ab": a, b, ab. a is in both: idf ln(3/3) + 1 = 1; the others: ln(3/2) + 1 = 1.405465
    # 2 / sqrt(4 + 1.405465^2) / sqrt(1 + 2 * 1.405465^2)
    assert row_pairs(["aa", "ab"], 0.3) == {(0, 1): pytest.approx(0.367720, abs=1e-6)}
    assert row_pairs(["aa", "ab"], 0.37) == {}


def test_the_cosines_are_those_of_scikit_learn():
    texts = [
        "Edit the following sentence to make it more formal.",
        "Edit the sentence to make it more formal.",
        "Name a dwarf planet, in our solar system!",
        "Name  a\tdwarf planet",
        "把这句话改得更正式。",
        "把这个句子改得更正式",
        "naïve Σίσυφος ﬁn",
        "İstanbul 🙂 x_y",
    ]
    found = row_pairs(texts, 0.1)
    assert found == {
        (0, 1): pytest.approx(0.9181561838046858, abs=1e-9),
        (0, 2): pytest.approx(0.3751114230110639, abs=1e-9),
        (1, 2): pytest.approx(0.3646243073474857, abs=1e-9),
        (0, 3): pytest.approx(0.24935843271618427, abs=1e-9),
        (1, 3): pytest.approx(0.25372634728166893, abs=1e-9),
        (2, 3): pytest.approx(0.6090863941782005, abs=1e-9),
        (4, 5): pytest.approx(0.5433268293075538, abs=1e-9),
        (0, 6): pytest.approx(0.11350605951861414, abs=1e-9),
        (1, 6): pytest.approx(0.11893818148741342, abs=1e-9),
        (2, 6): pytest.approx(0.11743299761285392, abs=1e-9),
        (3, 6): pytest.approx(0.11265522479200168, abs=1e-9),
        (0, 7): pytest.approx(0.1112900167696117, abs=1e-9),
        (1, 7): pytest.approx(0.10330769535474897, abs=1e-9),
        (2, 7): pytest.approx(0.17008755410402437, abs=1e-9),
    }


def test_the_threshold_itself_is_not_above_it():
    similarity = row_pairs(["aa", "ab"], 0.3)[0, 1]
    assert row_pairs(["aa", "ab"], similarity) == {}
    assert row_pairs(["aa", "ab"], math.nextafter(similarity, 0)) == {(0, 1): similarity}


def test_what_is_empty_moves_no_row():
    texts = ["", None, "the same words", "", "other things altogether", "The same words!", ""]
    near = near_texts(pl.Series(texts), threshold=0.9)
    assert near.groups.to_list() == [None, None, 0, None, 1, 0, None]
    assert near.pairs.rows() == []


@pytest.mark.parametrize("texts", [[], [""], ["", "", None], ["one row"], ["?!", "...", "  ", "\n\n"], ["a", "a", "b"]])
def test_where_there_is_nothing_to_compare_there_is_no_pair(texts):
    assert row_pairs(texts, 0.1) == {}


def test_one_character_is_not_compared_but_counts_in_the_collection():
    assert row_pairs(["aa", "ab", "a"], 0.1)[0, 1] == pytest.approx(dense(["aa", "ab", "a"], 0.1)[0, 1])
    assert row_pairs(["aa", "ab", "a"], 0.1)[0, 1] != pytest.approx(row_pairs(["aa", "ab"], 0.1)[0, 1])
    assert near_texts(pl.Series(["a", "a.", "a!"]), threshold=0.9).groups.to_list() == [None, 0, 0]


def test_case_punctuation_and_runs_of_white_space_make_no_difference_and_a_single_tab_does():
    assert normalise("It's  NOT\n\n so_bad, 这样。") == "its not so_bad 这样"
    assert normalise("a\tb \t c") == "a\tb c"


def test_different_texts_may_have_the_same_vector():
    # the same n-grams in another order: no equal texts, and yet a cosine of 1
    texts = ["xax xbx", "xbx xax"]
    assert row_pairs(texts, 0.5) == pytest.approx(dense(texts, 0.5))
    assert all(similarity <= 1 for similarity in row_pairs(texts * 3, 0.5).values())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(st.sampled_from("abAB ,\n\t!é字語İΣς\0_9"), max_size=12) | st.none(), max_size=25),
    st.sampled_from([0.1, 0.35, 0.5, 0.75, 0.9, 0.99]),
)
def test_hostile_texts_have_the_pairs_of_a_dense_comparison(texts, threshold):
    found, all_pairs = row_pairs(texts, threshold), dense(texts, threshold - 1e-9)
    wanted = {pair for pair, similarity in all_pairs.items() if similarity > threshold + 1e-9}
    assert wanted <= found.keys() <= all_pairs.keys()  # rounding decides at the threshold itself
    assert all(found[pair] == pytest.approx(all_pairs[pair], abs=1e-9) for pair in found)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(WORDS), max_size=12), max_size=60),
    st.sampled_from([0.3, 0.6, 0.8, 0.9]),
)
def test_sentences_have_the_pairs_of_a_dense_comparison(words, threshold):
    texts = [" ".join(some) for some in words]
    found, all_pairs = row_pairs(texts, threshold), dense(texts, threshold - 1e-9)
    assert {pair for pair, similarity in all_pairs.items() if similarity > threshold + 1e-9} <= found.keys()
    assert found == {pair: pytest.approx(all_pairs[pair], abs=1e-9) for pair in found}


def test_a_large_vocabulary_is_counted_as_a_small_one_is():
    texts = [chr(0x4E00 + i) + chr(0x5E00 + i % 977) + chr(0x6E00 + i * 7 % 4001) for i in range(3000)]
    texts += [texts[7] + "龜", texts[11]]
    assert row_pairs(texts, 0.5) == pytest.approx(dense(texts, 0.5))


def test_what_is_too_large_is_refused(monkeypatch):
    texts = ["river and cloud one", "river and cloud two", "river and cloud three"]
    for limit, value in (("MAX_TEXTS", 2), ("MAX_CHARS", 20), ("MAX_PAIRS", 2)):
        with monkeypatch.context() as patch:
            patch.setattr(cosine, limit, value)
            with pytest.raises(TooLargeError, match=str(value)):
                near_texts(pl.Series(texts), threshold=0.1)
