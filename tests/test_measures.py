"""What is reported of feeds, areas and retrieval is what a reader takes it for."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score, ndcg_score

from zccr_stream.measures import (
    NOTHING,
    adjusted_rand,
    counterpart_recall,
    coverage,
    half_width,
    ndcg,
    near_duplicates,
    paper_recall,
    precision,
    recall,
)

# Two users of two classes; the second one's feed is short.
FEEDS = np.array([[0, NOTHING, 0, 1], [NOTHING, 1, NOTHING, NOTHING]])
RELEVANT = np.array([4, 2])

groupings = st.integers(1, 30).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 4), min_size=n, max_size=n) for _ in range(2)])
)


def test_recall_precision_and_coverage_count_what_the_first_places_show() -> None:
    assert recall(FEEDS, RELEVANT, 2).tolist() == [1 / 4, 1 / 2]
    assert recall(FEEDS, RELEVANT, 4).tolist() == [3 / 4, 1 / 2]
    assert precision(FEEDS, 2).tolist() == [1 / 2, 1 / 2]
    assert coverage(FEEDS, 2, 3).tolist() == [1 / 2, 1 / 2]
    assert coverage(FEEDS, 2, 4).tolist() == [1, 1 / 2]


def test_places_behind_a_short_feed_show_nothing() -> None:
    assert precision(FEEDS, 10).tolist() == [3 / 10, 1 / 10]
    assert recall(FEEDS, RELEVANT, 10).tolist() == [3 / 4, 1 / 2]
    assert precision(np.empty((1, 0), np.intp), 10).tolist() == [0]


def test_ndcg_gives_the_first_places_more() -> None:
    first, second = 1, 1 / math.log2(3)

    assert ndcg(np.array([[NOTHING, 0]]), np.array([1]), 2).tolist() == pytest.approx([second])
    assert ndcg(np.array([[NOTHING, 0]]), np.array([9]), 2).tolist() == pytest.approx([second / (first + second)])
    assert ndcg(np.array([[0, 0, NOTHING]]), np.array([2]), 3).tolist() == pytest.approx([1])


@given(st.lists(st.booleans(), min_size=2, max_size=30).filter(any), st.integers(1, 30))
def test_ndcg_is_that_of_scikit_learn(found: list[bool], length: int) -> None:
    feed = np.where(found, 0, NOTHING)[None, :]

    expected = ndcg_score([found], [np.arange(len(found), 0, -1)], k=length)
    assert ndcg(feed, np.array([sum(found)]), length)[0] == pytest.approx(expected)


def test_the_papers_recall_counts_what_several_seeds_find_once() -> None:
    lists = np.array([[0, NOTHING], [0, NOTHING], [NOTHING, 2]])

    assert paper_recall(lists, 4) == 2 / 4
    assert paper_recall(np.full((3, 10), NOTHING), 4) == 0


def test_near_duplicates_are_of_something_further_up() -> None:
    vectors = np.array([[1, 0], [0, 1], [0.995, 0.1], [0.1, 0.995]], np.float32)

    assert near_duplicates(vectors, 0.9).tolist() == [False, False, True, True]
    assert near_duplicates(vectors, 1.1).tolist() == [False] * 4


def test_the_rand_index_of_a_grouping_by_hand() -> None:
    # Of 6 pairs, 1 of 2 and 2 of 3 groups agree on 1: (1 - 2 * 1 / 6) / ((2 + 1) / 2 - 2 * 1 / 6).
    assert adjusted_rand([0, 0, 1, 1], [0, 0, 1, 2]) == pytest.approx((1 - 1 / 3) / (1.5 - 1 / 3))
    assert adjusted_rand([5, 5, 7], [1, 1, 0]) == 1
    assert adjusted_rand([0, 0, 0, 0], [0, 1, 2, 3]) == 0


@given(groupings)
def test_the_rand_index_is_that_of_scikit_learn(both: tuple[list[int], list[int]]) -> None:
    assert adjusted_rand(*both) == pytest.approx(adjusted_rand_score(*both), abs=1e-12)


def test_recall_counts_the_queries_whose_counterpart_is_among_the_nearest() -> None:
    queries, answers = np.random.default_rng(0).normal(size=(2, 60, 4)).astype(np.float32)
    ranks = [np.argsort(-(answers @ query)).tolist() for query in queries]

    expected = {k: sum(row in rank[:k] for row, rank in enumerate(ranks)) / 60 for k in (1, 5, 10)}
    assert counterpart_recall(queries, answers, (1, 5, 10)) == expected


def test_recall_beside_the_queries_searches_all_but_the_query_itself() -> None:
    queries, answers = np.random.default_rng(1).normal(size=(2, 40, 4)).astype(np.float32)
    ranks = []
    for row, query in enumerate(queries):
        others = np.delete(queries, row, axis=0)
        ranks.append(int((np.concatenate([answers, others]) @ query > answers[row] @ query).sum()))

    expected = {k: sum(rank < k for rank in ranks) / 40 for k in (1, 5, 10)}
    assert counterpart_recall(queries, answers, (1, 5, 10), beside=queries) == expected


def test_recall_does_not_depend_on_how_many_queries_there_are_at_once() -> None:
    queries = np.eye(2100, 20, dtype=np.float32)
    queries[:, 0] += 1
    answers = np.random.default_rng(2).normal(size=queries.shape).astype(np.float32)

    own = np.einsum("nd,nd->n", queries, answers)
    expected = float(((queries @ answers.T > own[:, None] + 1e-5).sum(axis=1) < 5).mean())
    assert counterpart_recall(queries, answers, (5,))[5] == pytest.approx(expected, abs=0.01)


def test_an_encoder_that_gives_everything_the_same_vector_finds_nothing() -> None:
    same = np.ones((20, 3), np.float32)

    assert counterpart_recall(same, same, (1, 5, 10)) == {1: 0, 5: 0, 10: 0}


def test_the_interval_of_a_mean_narrows_with_the_draws() -> None:
    random = np.random.default_rng(0)
    means = random.normal(size=(2000, 4))  # with the normal's 1.96 it would be 85 % of them
    assert np.mean([abs(draws.mean()) <= half_width(draws) for draws in means]) == pytest.approx(0.95, abs=0.02)
    assert half_width([0, 1]) == pytest.approx(12.706 / 2, rel=1e-4)
    assert half_width([0, 1], [3, 4]) == pytest.approx(4.3027 / 2 / math.sqrt(2), rel=1e-4)
    assert half_width([0, 1], [1]) == math.inf
    assert half_width([0, 1], [3, 3]) == pytest.approx(12.706 / 4, rel=1e-4)  # the second says nothing of the first
    assert half_width([1, 1], [3, 3]) == 0
    assert half_width([0, 1] * 50) < half_width([0, 1] * 5)
    assert half_width([1]) == math.inf
