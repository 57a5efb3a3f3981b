from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zccr_stream.events import IMAGE, MODALITIES, TEXT, FeedItem, Recommended
from zccr_stream.interests import Area, Profile
from zccr_stream.ranking import Hits, RankingRule, rank

RULE = RankingRule(k=3, feed_size=50, near_duplicate=0.97)


def profile_of(asset_ids: Sequence[str], user_id: str = "me") -> Profile:
    n = len(asset_ids)
    return Profile(user_id, 4, list(asset_ids), [IMAGE] * n, np.arange(n), np.zeros((n, 2), dtype=np.float32))


def area_of(number: int, modality: str, size: int = 1) -> Area:
    return Area(f"area-{number}", modality, size / 8, np.arange(size), 0, np.zeros(2, dtype=np.float32), (modality,))


def hits_of(
    lines: Sequence[Sequence[tuple[str, float]]],
    owners: Mapping[str, str] | None = None,
    directions: Mapping[str, float] | None = None,
) -> Hits:
    """Hits by asset id and score; assets lie apart unless `directions` gives their angle."""
    names = sorted({name for line in lines for name, _ in line} | set(directions or {}), reverse=True)
    width = max(map(len, lines), default=0)
    rows = np.full((len(lines), width), -1, dtype=np.int64)
    scores = np.full((len(lines), width), -np.inf, dtype=np.float32)
    for number, line in enumerate(lines):
        rows[number, : len(line)] = [names.index(name) for name, _ in line]
        scores[number, : len(line)] = [score for _, score in line]
    vectors = np.eye(len(names), max(len(names), 2), dtype=np.float32)
    for name, angle in (directions or {}).items():
        vectors[names.index(name)] = 0
        vectors[names.index(name), :2] = np.cos(angle), np.sin(angle)
    return Hits(scores, rows, names, [(owners or {}).get(name, f"owner-of-{name}") for name in names], vectors)


@st.composite
def searches(draw: st.DrawFn) -> tuple[Profile, list[Area], dict[str, Hits], RankingRule]:
    """What a search of up to four areas may find: few assets, so that lists overlap, own ones and near-duplicates."""
    sizes = sorted(draw(st.lists(st.integers(1, 6), max_size=4)), reverse=True)
    areas = [area_of(number, draw(st.sampled_from(MODALITIES)), size) for number, size in enumerate(sizes)]
    hits = {}
    for modality in MODALITIES:
        names = [f"{modality}-{number}" for number in range(12)]
        random = draw(st.randoms(use_true_random=False))
        owners = {name: random.choice(["me", "you", "they"]) for name in names}
        directions = {name: random.randint(0, 60) / 20 for name in names}
        lines = [
            [
                (name, random.randint(-100, 100) / 100)
                for name in draw(st.lists(st.sampled_from(names), unique=True, max_size=8))
            ]
            for _ in areas
        ]
        hits[modality] = hits_of([sorted(line, key=lambda hit: -hit[1]) for line in lines], owners, directions)
    own = draw(st.lists(st.sampled_from([f"{modality}-{number}" for modality in MODALITIES for number in range(3)])))
    rule = RankingRule(
        draw(st.integers(1, 9)),
        draw(st.integers(0, 20)),
        draw(st.sampled_from([0.9, 0.999, 1.1])),
        draw(st.sampled_from([0.0, 0.3])),
        merged=draw(st.booleans()),
    )
    return profile_of([*own, "mine"]), areas, hits, rule


def cosine(hits: Hits, one: str, other: str) -> float:
    first, second = (hits.vectors[list(hits.asset_ids).index(name)].astype(float) for name in (one, other))
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


def expected_lists(profile: Profile, hits: Hits, line: int, k: int) -> list[Recommended]:
    found = [
        Recommended(hits.asset_ids[row], hits.user_ids[row], round(float(score), 6))
        for row, score in zip(hits.rows[line], hits.scores[line], strict=True)
        if row >= 0
    ]
    others = [item for item in found if item.user_id != profile.user_id and item.asset_id not in profile.asset_ids]
    return sorted(others, key=lambda item: (-item.score, item.asset_id))[:k]


def expected_feed(
    areas: Sequence[Area],
    lists: Sequence[Mapping[str, Sequence[Recommended]]],
    hits: Mapping[str, Hits],
    rule: RankingRule,
) -> list[FeedItem]:
    """Place by place: whose turn it is by sizes and turns taken, and then what of theirs is new and gains most."""
    feed: list[FeedItem] = []
    queues = []
    for area, of_area in zip(areas, lists, strict=True):
        either = (TEXT, IMAGE) if area.modality == IMAGE else (IMAGE, TEXT)
        waiting = [[(modality, item) for item in of_area[modality]] for modality in either]
        if rule.merged:
            waiting = [sorted(waiting[0] + waiting[1], key=lambda one: -one[1].score)]
        queues += [(area, of_one) for of_one in waiting]
    turns = [0] * len(queues)

    def likeness(modality: str, item: Recommended) -> float:
        if item.asset_id in {shown.asset_id for shown in feed}:
            return np.inf
        same = [shown.asset_id for shown in feed if shown.modality == modality]
        return max((cosine(hits[modality], shown, item.asset_id) for shown in same), default=-1.0)

    while len(feed) < rule.feed_size:
        new = {
            number: [one for one in waiting if likeness(*one) < rule.near_duplicate]
            for number, (_, waiting) in enumerate(queues)
        }
        if not any(new.values()):
            break
        number = max(
            (number for number in new if new[number]),
            key=lambda number: queues[number][0].weight / (2 * turns[number] + 1),
        )
        modality, item = max(
            new[number],
            key=lambda one: (
                (1 - rule.diversity) * one[1].score - rule.diversity * max(likeness(*one), 0) if rule.diversity else 0
            ),
        )
        feed.append(FeedItem(item.asset_id, item.user_id, modality, queues[number][0].area_id, item.score))
        turns[number] += 1
    return feed


@settings(max_examples=100)
@given(searches())
def test_lists_and_feed_are_those_of_the_plain_definition(
    search: tuple[Profile, list[Area], dict[str, Hits], RankingRule],
) -> None:
    profile, areas, hits, rule = search

    ranked = rank(profile, areas, hits, rule, "model", 7)

    lists = [
        {modality: expected_lists(profile, hits[modality], line, rule.k) for modality in MODALITIES}
        for line in range(len(areas))
    ]
    assert [area.recommended for area in ranked.areas] == lists
    assert ranked.feed == expected_feed(areas, lists, hits, rule)
    assert rank(profile, areas, hits, rule, "model", 7) == ranked


@settings(max_examples=100)
@given(searches())
def test_nothing_own_nothing_twice_nothing_alike_and_never_too_much(
    search: tuple[Profile, list[Area], dict[str, Hits], RankingRule],
) -> None:
    profile, areas, hits, rule = search

    ranked = rank(profile, areas, hits, rule, "model", 7)

    every = [items for area in ranked.areas for items in area.recommended.values()]
    assert [tuple(area.recommended) for area in ranked.areas] == [MODALITIES] * len(areas)
    assert all(len(items) <= rule.k for items in every)
    assert all(len({item.asset_id for item in items}) == len(items) for items in every)
    found = {(item.asset_id, item.user_id) for items in every for item in items}
    assert {asset_id for asset_id, _ in found}.isdisjoint(profile.asset_ids)
    assert profile.user_id not in {user_id for _, user_id in found}
    assert len(ranked.feed) <= rule.feed_size
    assert len({item.asset_id for item in ranked.feed}) == len(ranked.feed)
    in_lists = {
        (area.area_id, modality, item)
        for area in ranked.areas
        for modality, items in area.recommended.items()
        for item in items
    }
    assert all(
        (item.area_id, item.modality, Recommended(item.asset_id, item.user_id, item.score)) in in_lists
        for item in ranked.feed
    )
    for number, item in enumerate(ranked.feed):
        for other in ranked.feed[:number]:
            if other.modality == item.modality:
                assert cosine(hits[item.modality], other.asset_id, item.asset_id) < rule.near_duplicate


def test_an_area_is_reported_with_its_size_weight_and_representative() -> None:
    area = Area("area", TEXT, 0.25, np.array([2, 0]), 2, np.zeros(2, dtype=np.float32), (TEXT,))

    ranked = rank(profile_of(["a", "b", "c"]), [area], {}, RULE, "model", 7)

    (reported,) = ranked.areas
    assert (ranked.user_id, ranked.profile_version, ranked.model, ranked.generated_at_ns) == ("me", 4, "model", 7)
    assert (reported.area_id, reported.modality, reported.size, reported.weight) == ("area", TEXT, 2, 0.25)
    assert reported.representative == "c"
    assert reported.recommended == {IMAGE: [], TEXT: []}


def test_an_empty_profile_has_no_areas_and_no_feed() -> None:
    ranked = rank(profile_of([]), [], {}, RULE, "model", 7)

    assert (ranked.areas, ranked.feed) == ([], [])


def test_an_area_that_found_nothing_does_not_hold_up_the_others() -> None:
    hits = {IMAGE: hits_of([[], [("a", 0.9), ("b", 0.8)]]), TEXT: hits_of([[], []])}

    ranked = rank(profile_of(["x"]), [area_of(0, IMAGE), area_of(1, IMAGE)], hits, RULE, "model", 7)

    assert [item.asset_id for item in ranked.feed] == ["a", "b"]


def test_a_list_is_refilled_where_own_assets_were_left_out() -> None:
    """An asset that the index still has under another owner, and one that the profile does not have yet, are own."""
    hits = {IMAGE: hits_of([[("mine", 0.9), ("also-mine", 0.8), ("a", 0.7), ("b", 0.6)]], {"also-mine": "me"})}

    ranked = rank(profile_of(["mine"]), [area_of(0, TEXT)], hits, replace(RULE, k=2), "model", 7)

    assert [item.asset_id for item in ranked.areas[0].recommended[IMAGE]] == ["a", "b"]


def test_the_turns_go_by_weight_and_within_a_turn_the_other_modality_comes_first() -> None:
    hits = {
        IMAGE: hits_of([[("i1", 0.9), ("i2", 0.8)], [("i3", 0.7), ("i1", 0.6), ("i4", 0.5)]]),
        TEXT: hits_of([[("t1", 0.3)], [("t2", 0.4), ("t3", 0.2)]]),
    }

    ranked = rank(profile_of(["x"]), [area_of(0, IMAGE), area_of(1, TEXT)], hits, RULE, "model", 7)

    assert [item.asset_id for item in ranked.feed] == ["t1", "i1", "i3", "t2", "i2", "i4", "t3"]


def test_the_turns_are_in_proportion_to_the_areas_sizes_and_small_areas_come_before_the_last_of_large_ones() -> None:
    hits = {IMAGE: hits_of([[(f"a{i}", 1 - i / 10) for i in range(6)], [("b0", 0.5), ("b1", 0.4)], [("c0", 0.1)]])}
    areas = [area_of(0, TEXT, 4), area_of(1, TEXT, 2), area_of(2, TEXT, 1)]

    ranked = rank(profile_of(["x"]), areas, hits, replace(RULE, k=6), "model", 7)

    assert [item.asset_id for item in ranked.feed] == ["a0", "b0", "a1", "c0", "a2", "b1", "a3", "a4", "a5"]


def test_with_diversity_the_feed_shows_what_is_unlike_before_what_is_alike() -> None:
    hits = {IMAGE: hits_of([[("a", 0.9), ("like-a", 0.8), ("b", 0.7)]], directions={"a": 0, "like-a": 0.4, "b": 1.5})}

    ranked = rank(profile_of(["x"]), [area_of(0, TEXT)], hits, replace(RULE, diversity=0.3), "model", 7)

    assert [item.asset_id for item in ranked.areas[0].recommended[IMAGE]] == ["a", "like-a", "b"]
    assert [item.asset_id for item in ranked.feed] == ["a", "b", "like-a"]


def test_merged_an_areas_turn_is_its_best_hits_of_whatever_modality() -> None:
    hits = {
        IMAGE: hits_of([[("i1", 0.9), ("i2", 0.8)], [("i3", 0.1)]]),
        TEXT: hits_of([[("t1", 0.3)], [("t2", 0.4)]]),
    }

    ranked = rank(profile_of(["x"]), [area_of(0, IMAGE), area_of(1, IMAGE)], hits, replace(RULE, merged=True), "m", 7)

    assert [item.asset_id for item in ranked.feed] == ["i1", "t2", "i2", "i3", "t1"]


def test_near_duplicates_are_shown_once_across_areas_but_stay_in_the_lists() -> None:
    hits = {IMAGE: hits_of([[("a", 0.9)], [("copy", 0.8), ("b", 0.7)]], directions={"a": 0.0, "copy": 0.1, "b": 1.5})}

    ranked = rank(profile_of(["x"]), [area_of(0, IMAGE), area_of(1, IMAGE)], hits, RULE, "model", 7)

    assert [item.asset_id for item in ranked.areas[1].recommended[IMAGE]] == ["copy", "b"]
    assert [item.asset_id for item in ranked.feed] == ["a", "b"]


def test_an_asset_found_in_two_modalities_is_shown_once() -> None:
    """An asset may be replaced by one of the other modality between the two searches."""
    hits = {IMAGE: hits_of([[("a", 0.9)]]), TEXT: hits_of([[("a", 0.8), ("b", 0.7)]])}

    ranked = rank(profile_of(["x"]), [area_of(0, IMAGE)], hits, RULE, "model", 7)

    assert [(item.asset_id, item.modality) for item in ranked.feed] == [("a", TEXT), ("b", TEXT)]


def test_equal_scores_are_ordered_by_asset_id_whatever_the_replicas_rows() -> None:
    hits = hits_of([[("b", 0.5), ("a", 0.5 + 1e-8), ("c", 0.5)]])

    ranked = rank(profile_of(["x"]), [area_of(0, IMAGE)], {IMAGE: hits}, RULE, "model", 7)

    assert [item.asset_id for item in ranked.areas[0].recommended[IMAGE]] == ["a", "b", "c"]


def test_vectors_need_not_be_of_exactly_unit_length_to_be_near_duplicates() -> None:
    hits = hits_of([[("a", 0.9), ("b", 0.8)]], directions={"a": 0.0, "b": 0.0})
    hits = replace(hits, vectors=hits.vectors * np.array([[0.9], [1.1]], dtype=np.float32))

    ranked = rank(profile_of(["x"]), [area_of(0, IMAGE)], {IMAGE: hits}, replace(RULE, near_duplicate=1 - 1e-6), "m", 7)

    assert [item.asset_id for item in ranked.feed] == ["a"]


def test_hits_that_do_not_belong_to_the_areas_are_refused() -> None:
    with pytest.raises(ValueError, match=r"rows \(1, 1\) and scores \(1, 1\); expected one line per area, 2"):
        rank(
            profile_of(["x"]),
            [area_of(0, IMAGE), area_of(1, IMAGE)],
            {IMAGE: hits_of([[("a", 0.9)]])},
            RULE,
            "model",
            7,
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k is 0; expected at least 1"),
        ({"feed_size": -1}, "feed_size is -1; expected 0 or more"),
        ({"near_duplicate": 0.0}, "near_duplicate is 0.0; expected a cosine above 0"),
        ({"diversity": 1.0}, "diversity is 1.0; expected a share from 0 to below 1"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(RULE, **change)  # type: ignore[arg-type]
