"""How good are the recommendations: who is measured, what is counted, and the command on a real database."""

import json
import math
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from zccr_stream import assemble, oversight
from zccr_stream.cli import app
from zccr_stream.evaluation import (
    EACH_ASSET,
    FEEDS,
    HELD_OUT_MAX,
    LENGTHS,
    MEASURES,
    NEAR,
    NOBODY,
    ONE_AREA,
    PRODUCTION,
    RANDOM,
    Estimate,
    Evaluation,
    EvaluationRule,
    Evaluator,
    Feed,
    SearchSpace,
    Uploads,
    choose_users,
    count,
    hold_out,
)
from zccr_stream.events import AssetUploaded, Embeddings
from zccr_stream.index import LiveIndex
from zccr_stream.interests import AreaRule
from zccr_stream.metrics import ExportError
from zccr_stream.parts import UnavailableError, Writes
from zccr_stream.ranking import RankingRule
from zccr_stream.settings import Settings

RULE = EvaluationRule(users=500, assets_min=5, held_out=0.2, newest=False, seed=0)
AREAS = AreaRule(variance=0.9, cut=1.0, growth=0.0, areas_max=50, sample_size=1000, seed="centroid")
RANKING = RankingRule(k=10, feed_size=50, near_duplicate=0.97)
D = 16
NS = 1_780_000_000_000_000_000

Vectors = npt.NDArray[np.float32]


def uploads_of(user_id: str, n: int, modality: str = "image") -> Uploads:
    """The later in the alphabet, the newer."""
    return Uploads(user_id, [f"{user_id}-{row:03}" for row in range(n)], [modality] * n, NS + np.arange(n))


# Who is measured, and what is held out


SIZES = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.integers(1, 20), max_size=40)


@given(SIZES, st.integers(1, 10), st.integers(2, 12), st.integers(0, 3))
def test_users_with_enough_assets_are_drawn(sizes: dict[str, int], users: int, assets_min: int, seed: int) -> None:
    rule = EvaluationRule(users, assets_min, 0.2, False, seed)
    sample = choose_users(sizes, rule)
    enough = {user_id for user_id, size in sizes.items() if size >= assets_min}

    assert set(sample.user_ids) <= enough
    assert list(sample.user_ids) == sorted(set(sample.user_ids))
    assert len(sample.user_ids) == min(users, len(enough))
    assert (sample.enough, sample.too_few) == (len(enough), len(sizes) - len(enough))
    assert sample.largest == max(sizes.values(), default=0)
    assert choose_users(dict(reversed(sizes.items())), rule) == sample


@given(SIZES, st.integers(1, 10))
def test_a_user_more_changes_one_of_the_sample_at_most(sizes: dict[str, int], users: int) -> None:
    rule = replace(RULE, users=users)
    before = set(choose_users(sizes, rule).user_ids)
    after = set(choose_users({**sizes, "somebody new": 9}, rule).user_ids)

    assert after - before <= {"somebody new"}
    assert len(before - after) <= 1


def test_another_seed_draws_others() -> None:
    sizes = {f"u{number}": 9 for number in range(100)}
    rule = replace(RULE, users=10)

    assert choose_users(sizes, rule).user_ids != choose_users(sizes, replace(rule, seed=1)).user_ids


@given(st.integers(2, 400), st.floats(0.001, 0.999), st.booleans())
def test_a_share_is_held_out_but_never_all(n: int, share: float, newest: bool) -> None:
    rule = replace(RULE, held_out=share, newest=newest)
    split = hold_out(uploads_of("ann", n), rule)
    held = int(split.held_out.sum())

    assert 1 <= held < n
    assert held <= HELD_OUT_MAX
    assert abs(held - share * n) <= 1 or held in (1, n - 1, HELD_OUT_MAX)
    assert split.wanted == [f"ann-{row:03}" for row in np.flatnonzero(split.held_out)]
    if newest:
        assert split.held_out[-held:].all()


def test_an_upload_more_changes_one_of_what_is_held_out_at_most() -> None:
    fewer, more = uploads_of("ann", 40), uploads_of("ann", 41)
    before, after = set(hold_out(fewer, RULE).wanted), set(hold_out(more, RULE).wanted)

    assert len(after - before) <= 1
    assert len(before - after) <= 1


@pytest.mark.parametrize("wrong", [{"users": 0}, {"assets_min": 1}, {"held_out": 0.0}, {"held_out": 1.0}])
def test_a_rule_that_measures_nothing_is_refused(wrong: Mapping[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(RULE, **wrong)  # type: ignore[arg-type]


# What is counted


def brute_force(
    shown: Sequence[str], vectors: Vectors, modalities: Sequence[str], wanted: Mapping[str, int], length: int
) -> dict[str, float]:
    """The measures place by place, as their definitions read."""
    first = list(shown[:length])
    hits = [place for place, asset_id in enumerate(first) if asset_id in wanted]
    best = sum(1 / math.log2(place + 2) for place in range(min(length, len(wanted))))
    cosines = [
        float(vectors[left] @ vectors[right])
        for left in range(len(first))
        for right in range(left)
        if modalities[left] == modalities[right]
    ]
    near = [any(vectors[place] @ vectors[earlier] >= NEAR for earlier in range(place)) for place in range(len(first))]
    return {
        "recall": len(hits) / len(wanted),
        "precision": len(hits) / length,
        "ndcg": sum(1 / math.log2(place + 2) for place in hits) / best,
        "coverage": len({wanted[first[place]] for place in hits}) / len(set(wanted.values())),
        "near_duplicates": sum(near) / len(near) if near else math.nan,
        "diversity": 1 - sum(cosines) / len(cosines) if cosines else math.nan,
    }


@given(st.integers(0, 60), st.integers(1, 60), st.integers(0, 10_000))
def test_a_feed_counts_as_the_definitions_read(f: int, wanted: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    shown = [f"a{number}" for number in random.permutation(120)[:f]]
    looked_for = {f"a{number}": int(random.integers(5)) + 7 for number in random.permutation(120)[:wanted]}
    vectors = random.standard_normal((f, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    modalities = random.choice(["image", "text"], f)
    crossmodal = random.integers(0, 2, f).astype(np.float64)

    values = count(Feed(shown, modalities, crossmodal), vectors, looked_for)

    for length in LENGTHS:
        expected = brute_force(shown, vectors, modalities.tolist(), looked_for, length)
        expected["crossmodal"] = float(crossmodal[:length].mean()) if f else math.nan
        assert expected.keys() == set(MEASURES)
        for measure, value in expected.items():
            assert values[measure, length] == pytest.approx(value, abs=1e-5, nan_ok=True), (measure, length)


def test_estimates_leave_out_whom_they_cannot_be_said_of() -> None:
    two = Estimate.of([0.5, math.nan, 1.0])
    assert two.mean == 0.75
    assert two.half_width == pytest.approx(12.706 * 0.25, rel=1e-4)
    assert Estimate.of([1.0, math.nan]) == Estimate(1.0, None)
    assert Estimate.of([math.nan]) == Estimate(None, None)


# A world of topics: users upload to some of them, each modality with an offset of its own


def direction(topic: int, d: int) -> Vectors:
    vector = np.zeros(d, np.float32)
    vector[topic] = 1
    return vector


def assets(random: np.random.Generator, user_id: str, topics: Iterable[int], modality: str, d: int) -> Embeddings:
    """One asset a topic; the number of the topic is in its id."""
    topics = list(topics)
    ids = [f"{user_id}-{modality}-{row:03}-t{topic}" for row, topic in enumerate(topics)]
    vectors = np.stack([direction(topic, d) for topic in topics]) + random.normal(0, 0.05, (len(topics), d))
    vectors[:, -1 if modality == "text" else -2] += 0.5
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    n = len(topics)
    return Embeddings(
        "mini",
        ids,
        [user_id] * n,
        [modality] * n,
        np.arange(n) + 1,
        NS + np.arange(n),
        vectors.astype(np.float16),
        np.ones(n, np.bool_),
    )


def world(users: int, d: int = D, each: int = 6) -> list[Embeddings]:
    """Users of two topics each out of eight, uploaded in turn, in both modalities."""
    random = np.random.default_rng(1)
    return [
        assets(random, f"u{number:02}", [number % 8, (number + 3) % 8] * (each // 2), modality, d)
        for number in range(users)
        for modality in ("image", "text")
    ]


def uploads_in(pages: Sequence[Embeddings]) -> list[Uploads]:
    rows = sorted(
        (user_id, asset_id, modality, at)
        for page in pages
        for user_id, asset_id, modality, at in zip(
            page.user_ids, page.asset_ids, page.modalities, page.occurred_at_ns.tolist(), strict=True
        )
    )
    by_user: dict[str, list[tuple[str, str, int]]] = {}
    for user_id, *row in rows:
        by_user.setdefault(user_id, []).append((row[0], row[1], row[2]))
    return [
        Uploads(user_id, [r[0] for r in of], [r[1] for r in of], np.array([r[2] for r in of]))
        for user_id, of in by_user.items()
    ]


def evaluated(
    pages: Sequence[Embeddings], rule: EvaluationRule = RULE, ranking: RankingRule = RANKING, at_once: int = 64
) -> Evaluation:
    uploads = uploads_in(pages)
    sample = choose_users({of.user_id: len(of.asset_ids) for of in uploads}, rule)
    splits = [hold_out(of, rule) for of in uploads if of.user_id in sample.user_ids]
    space = SearchSpace(LiveIndex(pages[0].vectors.shape[1], 1000, 0.5), splits)
    for page in pages:
        space.add(page)
    evaluator = Evaluator(space, AREAS, ranking, rule.seed)
    for first in range(0, len(splits), at_once):
        evaluator.add(splits[first : first + at_once])
    return evaluator.evaluation(sample)


def test_what_is_held_out_is_found_as_if_of_others_and_what_remains_is_not() -> None:
    """Against an exhaustive search, for each of two users in one index."""
    pages = world(6)
    splits = [hold_out(of, replace(RULE, held_out=0.5)) for of in uploads_in(pages)[:2]]
    space = SearchSpace(LiveIndex(D, 1000, 0.5), splits)
    for page in pages:
        space.add(page)
    seeds = np.stack([direction(0, D), direction(1, D)])

    hits = space.index.search("image", seeds, [split.uploads.user_id for split in splits], 100)

    everything = {
        asset_id: vector.astype(np.float32)
        for page in pages
        if page.modalities[0] == "image"
        for asset_id, vector in zip(page.asset_ids, page.vectors, strict=True)
    }
    for line, (split, seed) in enumerate(zip(splits, seeds, strict=True)):
        own = set(split.uploads.asset_ids) - set(split.wanted)
        scores = {asset_id: float(seed @ vector) for asset_id, vector in everything.items() if asset_id not in own}
        rows = hits.rows[line][hits.rows[line] >= 0]
        assert [hits.asset_ids[row] for row in rows] == sorted(scores, key=scores.__getitem__, reverse=True)
        assert {hits.user_ids[row] for row in rows if hits.asset_ids[row] in split.wanted} == {NOBODY}
        assert set(split.wanted) & everything.keys() <= {hits.asset_ids[row] for row in rows}


def test_a_feed_by_chance_is_of_different_assets_that_are_not_ones_own() -> None:
    pages = world(6)
    uploads = uploads_in(pages)
    splits = [hold_out(of, RULE) for of in uploads]
    space = SearchSpace(LiveIndex(D, 1000, 0.5), splits)
    for page in pages:
        space.add(page)
    seen: set[str] = set()
    for seed in range(20):
        feed = space.draw(splits[0], seed)
        own = set(uploads[0].asset_ids) - set(splits[0].wanted)
        assert len(feed.asset_ids) == len(set(feed.asset_ids)) == max(LENGTHS)
        assert not own & set(feed.asset_ids)
        seen |= set(feed.asset_ids)
        assert space.draw(splits[0], seed).asset_ids == feed.asset_ids

    assert seen == {asset_id for of in uploads for asset_id in of.asset_ids} - own


def test_interests_are_found_again_and_better_than_by_chance() -> None:
    evaluation = evaluated(world(40, each=10), ranking=replace(RANKING, k=50))

    ours = {length: evaluation.feeds[PRODUCTION][length]["recall"].mean for length in LENGTHS}
    assert evaluation.assets == {"image": 400, "text": 400}
    assert evaluation.held_out == 40 * 4
    lead = evaluation.above[RANDOM][50]
    assert lead.mean is not None and lead.half_width is not None and lead.mean > lead.half_width
    random = evaluation.feeds[RANDOM][50]["recall"].mean
    assert random is not None and ours[50] is not None and ours[50] > 1.5 * random
    assert lead.mean == pytest.approx(ours[50] - random, abs=1e-5)
    assert random == pytest.approx(50 / 784, abs=0.04)


def test_an_interest_of_which_nothing_remains_is_not_found() -> None:
    """What is held out takes no part in finding the areas: with it, the third topic would have a seed of its own."""
    random = np.random.default_rng(2)
    ann = assets(random, "ann", [0] * 8 + [5, 5], "image", D)
    others = [assets(random, f"u{number}", [number % 8] * 12, "image", D) for number in range(16)]
    rule = replace(RULE, users=1, newest=True)
    split = hold_out(uploads_in([ann])[0], rule)
    assert [asset_id[-2:] for asset_id in split.wanted] == ["t5", "t5"]
    space = SearchSpace(LiveIndex(D, 1000, 0.5), [split])
    for page in (ann, *others):
        space.add(page)
    evaluator = Evaluator(space, AREAS, replace(RANKING, k=20), 0)
    evaluator.add([split])
    evaluation = evaluator.evaluation(choose_users({"ann": 10}, rule))

    assert evaluation.feeds[PRODUCTION][50]["recall"].mean == 0
    assert evaluation.feeds[EACH_ASSET][20]["recall"].mean == 0
    assert evaluation.repeats.mean == 0


def test_copies_of_what_remains_are_called_repeats() -> None:
    page = assets(np.random.default_rng(3), "ann", [0] * 10, "image", D)
    same = replace(page, vectors=np.tile(page.vectors[:1], (10, 1)))
    other = assets(np.random.default_rng(4), "ben", [0] * 10, "image", D)

    assert evaluated([same, other], replace(RULE, users=2)).repeats == Estimate.of([1.0, _repeats_by_hand(other)])


def _repeats_by_hand(page: Embeddings) -> float:
    split = hold_out(uploads_in([page])[0], RULE)
    vectors = page.vectors.astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    left, right = vectors[split.held_out], vectors[~split.held_out]
    return float(np.mean([any(one @ two >= 0.97 for two in right) for one in left]))


def test_neither_batches_nor_pages_nor_another_run_change_a_number() -> None:
    pages = world(10)
    halves = [page_half for page in pages for page_half in (_rows(page, slice(0, 2)), _rows(page, slice(2, None)))]

    once = evaluated(pages)
    assert once == evaluated(pages)
    assert once == evaluated(pages, at_once=3)
    assert once == evaluated(halves)
    assert once != evaluated(pages, replace(RULE, seed=1))


def _rows(page: Embeddings, rows: slice) -> Embeddings:
    return Embeddings(
        page.model,
        page.asset_ids[rows],
        page.user_ids[rows],
        page.modalities[rows],
        page.revisions[rows],
        page.occurred_at_ns[rows],
        page.vectors[rows],
        page.live[rows],
    )


def test_one_feed_for_all_shows_few_different_assets() -> None:
    """Everybody likes the same: `distinct` says so, and chance shows more."""
    random = np.random.default_rng(5)
    pages = [assets(random, f"u{number:02}", [0] * 6, "image", D) for number in range(30)]
    same = [replace(page, vectors=np.tile(pages[0].vectors[:1], (6, 1))) for page in pages]
    evaluation = evaluated(same, ranking=replace(RANKING, near_duplicate=1.1))
    ours, chance = evaluation.distinct[PRODUCTION][10], evaluation.distinct[RANDOM][10]

    assert ours is not None and chance is not None and ours < 0.2 * chance


def test_a_catalogue_of_one_user_has_an_answer() -> None:
    evaluation = evaluated([assets(np.random.default_rng(6), "ann", [0] * 5, "text", D)])

    assert evaluation.feeds[PRODUCTION][10]["recall"] == Estimate(1.0, None)
    assert evaluation.feeds[PRODUCTION][10]["precision"] == Estimate(0.1, None)
    assert evaluation.feeds[PRODUCTION][10]["diversity"] == Estimate(None, None)


# The command


@pytest.fixture
def settings(database: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("ZCCR_DATABASE_URL", database)
    monkeypatch.setenv("ZCCR_ENCODER", "mini")
    return Settings()


def store(settings: Settings, pages: Sequence[Embeddings]) -> None:
    truth = assemble.ownership(settings)
    for page in pages:
        uploads = [
            AssetUploaded(f"e-{asset_id}", at, 0, asset_id, user_id, modality, uri="data:,")
            for asset_id, user_id, modality, at in zip(
                page.asset_ids, page.user_ids, page.modalities, page.occurred_at_ns.tolist(), strict=True
            )
        ]
        truth.write(Writes(assemble.model(settings), uploads, page.vectors))
    truth.close()


def rows(settings: Settings) -> list[object]:
    engine = sa.create_engine(settings.database_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return [
            connection.execute(sa.text(f"SELECT * FROM {table} ORDER BY 1")).all()
            for table in ("assets", "users", "unannounced_assets", "unannounced_profiles")
        ]


def run(*options: str, columns: int = 80) -> str:
    arguments = ["evaluate", *options]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": str(columns)}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert not result.stderr, "cron would mail it"
    return result.stdout


def test_the_command_measures_what_is_in_the_database_and_changes_nothing(settings: Settings) -> None:
    pages = world(9, d=384)
    store(settings, [*pages, assets(np.random.default_rng(7), "few", [0] * 3, "text", 384)])
    before = rows(settings)

    found = json.loads(run("--json", "--users", "8"))

    assert rows(settings) == before
    assert found["model"] == assemble.model(settings)
    assert found["sample"] == {"users": 8, "enough": 9, "too_few": 1, "largest": 12}
    assert found["assets"] == {"image": 54, "text": 57}
    assert found["too_few_assets"].startswith("Measured without the calibrated cut (100), seeds in contrast (256): ")
    assert found["held_out"] == 8 * 2
    assert found["rule"] == {"users": 8, "assets_min": 5, "held_out": 0.2, "newest": False, "seed": 0}
    assert set(found["feeds"]) == set(FEEDS)
    assert set(found["above"]) == {ONE_AREA, EACH_ASSET, RANDOM}
    assert set(found["feeds"][PRODUCTION]["10"]) == set(MEASURES)
    assert json.loads(run("--json", "--users", "8")) == found
    assert json.loads(run("--json", "--users", "8", "--newest")) != found
    assert "u00" not in json.dumps(found), "who was measured is nobody's business"


@pytest.mark.parametrize(
    ("name", "value"), [("areas_max", 1), ("area_sample_size", 1), ("area_variance", 0.5), ("area_growth", 0.1)]
)
def test_what_changes_areas_is_among_the_settings_that_nights_are_compared_by(
    name: str, value: float, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(settings, world(5, d=384))
    monkeypatch.setenv(f"ZCCR_{name.upper()}", str(value))

    assert json.loads(run("--json", "--users", "5"))["settings"][name] == value


def test_pages_of_the_database_join_without_a_gap(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    store(settings, world(5, d=384))
    steps: list[tuple[str, int, int]] = []
    whole = oversight.evaluate(settings, RULE, lambda *step: steps.append(step))
    assert steps == [("reading", 60, 60), ("measuring", 5, 5)]
    monkeypatch.setattr("zccr_stream.ownership.everything._PAGE_ROWS", 7)
    monkeypatch.setattr("zccr_stream.oversight._USERS_AT_ONCE", 2)
    monkeypatch.setenv("ZCCR_PROFILE_ASSETS_MAX", "13")
    steps.clear()

    assert oversight.evaluate(Settings(), RULE, lambda *step: steps.append(step)) == whole
    assert steps[:2] == [("reading", 7, 60), ("reading", 14, 60)]
    assert [step for step in steps if step[0] == "measuring"] == [("measuring", n, 5) for n in range(1, 6)]


def test_what_is_set_and_waits_for_more_assets_is_named() -> None:
    asked = Settings(area_joint=True, scores="calibrated")

    few = assemble.too_few_assets(asked, {"image": 99, "text": 5000})
    more = assemble.too_few_assets(asked, {"image": 100, "text": 255})

    without = "the calibrated cut (100), seeds in contrast (256), joint areas (100), calibrated scores (100)"
    assert few is not None and few.startswith(f"Measured without {without}: ") and "99 images, 5,000 texts" in few
    assert more is not None and more.startswith("Measured without seeds in contrast (256): ")
    assert assemble.too_few_assets(asked, {"image": 256, "text": 256}) is None
    assert assemble.too_few_assets(Settings(area_cut=1.1, area_seed="centroid"), {"text": 1}) is None


@pytest.mark.parametrize("columns", [80, 120])
def test_a_person_reads_it_on_a_terminal(columns: int, settings: Settings) -> None:
    store(settings, world(9, d=384))

    said = run(columns=columns)

    assert max(len(line) for line in said.splitlines()) <= columns
    assert "…" not in said
    said = " ".join(said.split())
    assert "9 users measured, of 9 with 5 assets or more (0 have fewer)" in said
    assert "18 of their assets held out (drawn), looked for among 54 images and 54 texts" in said
    for row in (
        "recall ",
        "precision",
        "nDCG",
        "areas covered",
        "recall, chance",
        "above one area a user",
    ):
        assert row in said
    assert "Measured without the calibrated cut (100), seeds in contrast (256): " in said
    assert "there are 54 images, 54 texts." in said
    assert "Recall beside chance: " in said
    assert "Nothing of what was held out has a near-duplicate in the rest of its profile" in said


def test_what_cannot_be_measured_is_said(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def failure(*options: str) -> str:
        failed = CliRunner().invoke(app, ["evaluate", *options])
        assert isinstance(failed.exception, UnavailableError), failed.output
        return str(failed.exception)

    assert "no live asset yet" in failure()
    store(settings, [assets(np.random.default_rng(8), "ann", [0] * 4, "text", 384)])
    assert "the largest profile has 4" in failure()
    assert "--assets-min" in failure()
    assert json.loads(run("--json", "--assets-min", "4"))["sample"]["users"] == 1
    monkeypatch.setenv("ZCCR_ENCODER", "ViT-B-32/laion2b_s34b_b79k")
    assert "set ZCCR_ENCODER" in failure()
    monkeypatch.setenv("ZCCR_DATABASE_URL", "postgresql+psycopg2://nobody@127.0.0.1:1/none")
    assert "127.0.0.1" in failure()


@pytest.mark.parametrize("share", ["0", "1", "-1", "nan", "x"])
def test_a_share_that_makes_no_sense_is_refused(share: str) -> None:
    refused = CliRunner().invoke(app, ["evaluate", "--held-out", share])

    assert refused.exit_code == 2
    assert "--held-out" in refused.output


# The metrics


@contextmanager
def gateway(status: int) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """A pushgateway that answers with `status`, and what it was sent: method, path, text."""
    taken: list[tuple[str, str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            taken.append((self.command, self.path, text))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", taken
        finally:
            server.shutdown()
            thread.join()


def samples(text: str) -> dict[tuple[str, ...], float]:
    """By name and values of the labels in the order of their names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_same_numbers_go_to_the_file_the_gateway_and_the_screen(settings: Settings, tmp_path: Path) -> None:
    store(settings, world(9, d=384))
    file = tmp_path / "zccr.prom"
    with gateway(202) as (url, taken):
        found = json.loads(run("--json", "--textfile", str(file), "--pushgateway", url))

    [(method, path, pushed)] = taken
    assert (method, path) == ("PUT", "/metrics/job/zccr-evaluate/instance/evaluate")
    assert [entry.name for entry in tmp_path.iterdir()] == ["zccr.prom"]
    exported = samples(file.read_text())
    assert exported == samples(pushed)
    assert all(name.startswith("zccr_evaluation_") for name, *_ in exported)
    for feed, lengths in found["feeds"].items():
        for length, measures in lengths.items():
            for measure, estimate in measures.items():
                assert exported.get(("zccr_evaluation_mean", feed, length, measure)) == estimate["mean"]
                assert exported.get(("zccr_evaluation_half_width", feed, length, measure)) == estimate["half_width"]
            assert exported["zccr_evaluation_distinct", feed, length] == found["distinct"][feed][length]
    for feed, lengths in found["above"].items():
        for length, estimate in lengths.items():
            assert exported["zccr_evaluation_lead", length, feed] == estimate["mean"]
            assert exported["zccr_evaluation_lead_half_width", length, feed] == estimate["half_width"]
    assert exported["zccr_evaluation_users",] == 9
    assert exported["zccr_evaluation_held_out_assets",] == found["held_out"]
    assert exported["zccr_evaluation_assets", "image"] == found["assets"]["image"]
    assert exported["zccr_evaluation_repeats",] == found["repeats"]["mean"]
    assert exported["zccr_evaluation_last_success_timestamp_seconds",] > NS / 1e9


def test_metrics_that_go_nowhere_are_an_error(settings: Settings, tmp_path: Path) -> None:
    def failure(*options: str) -> str:
        failed = CliRunner().invoke(app, ["evaluate", *options])
        assert isinstance(failed.exception, ExportError), failed.output
        return str(failed.exception)

    # Before anything is measured: there is nothing to measure yet.
    assert ".prom" in failure("--textfile", str(tmp_path / "zccr.txt"))
    assert "no folder" in failure("--textfile", str(tmp_path / "none" / "zccr.prom"))
    (tmp_path / "a.prom").mkdir()
    assert "is a folder" in failure("--textfile", str(tmp_path / "a.prom"))
    assert "File name too long" in failure("--textfile", str(tmp_path / f"{'a' * 255}.prom"))
    assert "cannot write to /proc" in failure("--textfile", "/proc/zccr.prom")  # not even by root
    for wrong in ("gopher://127.0.0.1", "http://", "http://a:b", "http://a b:9091", ""):
        assert f"{wrong!r} is no address of a pushgateway" in failure("--pushgateway", wrong)
    store(settings, world(3, d=384))
    with gateway(500) as (url, _):
        assert "500" in failure("--pushgateway", url)
    assert url in failure("--pushgateway", url)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def speak_no_http() -> None:
            with server.accept()[0] as connection:
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        said = threading.Thread(target=speak_no_http)
        said.start()
        assert "did not take the metrics" in failure("--pushgateway", f"127.0.0.1:{server.getsockname()[1]}")
        said.join()
    refused = CliRunner().invoke(app, ["evaluate", "--pushgateway", url])
    assert "3 users measured" in refused.output  # the work is not lost
