"""The index against brute force: content, exactness, ties, threads, snapshots.

Everything is compared with `Model`, which keeps each asset's newest state in a dictionary and searches by a float64
inner product with every vector. The bounds that matter only at millions of vectors are made tiny, so that small
examples reach every path.
"""

from __future__ import annotations

import fcntl
import resource
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from zccr_stream.catalogue import Catalogue
from zccr_stream.events import Embeddings
from zccr_stream.index import LiveIndex, SnapshotError, nearest
from zccr_stream.index.arena import Arena, Names
from zccr_stream.index.sample import Sample
from zccr_stream.ranking import Hits

TAKEN_AT_S = 1.5e9
D = 8
MODALITIES = ("image", "text", "sound")
USERS = ("ann", "bob", "cyn")
IDS = tuple(f"asset-{number}" for number in range(14))
BOUNDS = {
    "as shipped": {},
    "no spare": {"SPARE": 0},
    "tiny": {"SPARE": 1, "SEEDS_MAX": 2, "PAIRS_MAX": 4, "PAIRS_BLOCK": 2, "ENTRIES_MAX": 40},
}

Float16s = npt.NDArray[np.float16]
Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True)
class State:
    """One asset's state; `vector` None: removed."""

    asset_id: str
    revision: int
    user_id: str = "nobody"
    modality: str = "image"
    vector: Float16s | None = None


@dataclass
class Model:
    """What an index must hold and answer."""

    held: dict[str, State] = field(default_factory=dict)

    def apply(self, states: Sequence[State]) -> None:
        for state in states:
            if state.asset_id not in self.held or state.revision > self.held[state.asset_id].revision:
                self.held[state.asset_id] = state

    def live(self, modality: str | None = None) -> list[State]:
        return [s for s in self.held.values() if s.vector is not None and modality in (None, s.modality)]

    def search(self, modality: str, seed: Float32s, user_id: str, k: int) -> list[tuple[str, str, float]]:
        scored = []
        for state in self.live(modality):
            if state.user_id != user_id and state.vector is not None:
                score = np.float32((state.vector.astype(np.float64) * seed.astype(np.float64)).sum())
                scored.append((-float(score), state.asset_id, state.user_id))
        return [(asset_id, owner, -negated) for negated, asset_id, owner in sorted(scored)[:k]]


def unit(rows: npt.NDArray[Any]) -> Float32s:
    wide = np.atleast_2d(rows).astype(np.float64)
    unit_rows: Float32s = (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)
    return unit_rows


def embeddings(states: Sequence[State], d: int = D) -> Embeddings:
    nothing = np.zeros(d, np.float16)
    return Embeddings(
        model="m",
        asset_ids=[state.asset_id for state in states],
        user_ids=[state.user_id for state in states],
        modalities=[state.modality for state in states],
        revisions=np.array([state.revision for state in states], np.int64),
        occurred_at_ns=np.zeros(len(states), np.int64),
        vectors=np.array([nothing if state.vector is None else state.vector for state in states], np.float16).reshape(
            len(states), d
        ),
        live=np.array([state.vector is not None for state in states], np.bool_),
    )


def answers(hits: Hits) -> list[list[tuple[str, str, float]]]:
    """Hits as lists of (asset, owner, score); their form is checked on the way."""
    s, k = hits.rows.shape
    assert hits.scores.shape == (s, k)
    assert [array.dtype.name for array in (hits.scores, hits.rows, hits.vectors)] == ["float32", "int64", "float32"]
    assert len(set(hits.asset_ids)) == len(hits.asset_ids) == len(hits.user_ids) == len(hits.vectors)
    assert np.array_equal(np.unique(hits.rows[hits.rows >= 0]), np.arange(len(hits.asset_ids)))
    assert np.array_equal(hits.rows < 0, np.isneginf(hits.scores))
    found = []
    for rows, scores in zip(hits.rows.tolist(), hits.scores.tolist(), strict=True):
        end = rows.index(-1) if -1 in rows else k
        assert all(row == -1 for row in rows[end:])
        pairs = zip(rows[:end], scores[:end], strict=True)
        found.append([(hits.asset_ids[row], hits.user_ids[row], score) for row, score in pairs])
    return found


def assert_same_content(index: LiveIndex, model: Model) -> None:
    """The index holds exactly the live assets of the model, bit by bit."""
    ids = sorted(model.held)
    revisions = np.array([model.held[asset_id].revision for asset_id in ids], np.int64)
    held, vectors = index.vectors(ids, revisions)
    for asset_id, is_held, vector in zip(ids, held.tolist(), vectors, strict=True):
        expected = model.held[asset_id].vector
        assert is_held == (expected is not None), asset_id
        assert np.array_equal(vector, np.zeros_like(vector) if expected is None else expected)
    assert not index.vectors(ids, revisions + 1)[0].any()
    sizes = {modality: len(model.live(modality)) for modality in MODALITIES}
    assert {**dict.fromkeys(MODALITIES, 0), **index.sizes()} == sizes


def assert_answers(
    index: LiveIndex, model: Model, modality: str, seeds: Float32s, users: Sequence[str], k: int
) -> None:
    expected = [model.search(modality, seed, user, k) for seed, user in zip(seeds, users, strict=True)]
    assert answers(index.search(modality, seeds, users, k)) == expected


@contextmanager
def bounded(name: str) -> Iterator[None]:
    """Search with other bounds."""
    with pytest.MonkeyPatch.context() as patch:
        for constant, value in BOUNDS[name].items():
            patch.setattr(nearest, constant, value)
        yield


_POOL = unit(np.random.default_rng(7).standard_normal((6, D))).astype(np.float16)
_POOL = np.concatenate((_POOL, np.nextafter(_POOL[:2], np.float16(2)), np.eye(D, dtype=np.float16)[:2]))

vectors_of_pool = st.integers(0, len(_POOL) - 1).map(lambda row: _POOL[row])
seeds_of_pool = st.tuples(st.integers(0, len(_POOL) - 1), st.integers(0, len(_POOL) - 1)).map(
    lambda rows: unit(_POOL[rows[0]].astype(np.float32) + np.float32(0.3) * _POOL[rows[1]])[0]
)
states_of_pool = st.builds(
    State,
    asset_id=st.sampled_from(IDS),
    revision=st.integers(0, 2**62),
    user_id=st.sampled_from(USERS),
    modality=st.sampled_from(MODALITIES[:2]),
    vector=st.one_of(vectors_of_pool, vectors_of_pool, st.none()),
)


class Interleaving(RuleBasedStateMachine):
    """Any order of applying, searching, looking up, saving and restoring agrees with the model."""

    bounds = "as shipped"

    @initialize(segment_rows=st.sampled_from([1, 3, 8, 64]), dead_share=st.sampled_from([0.01, 0.25, 1.0]))
    def begin(self, segment_rows: int, dead_share: float) -> None:
        self.shape = (D, segment_rows, dead_share)
        self.index = LiveIndex(*self.shape)
        self.model = Model()
        self.written = -1
        self._bounded = bounded(self.bounds)
        self._bounded.__enter__()

    @rule(states=st.lists(states_of_pool, max_size=12))
    def apply(self, states: list[State]) -> None:
        # One revision never stands for two states: a row of the batch that says so is another revision.
        states = [
            State(s.asset_id, s.revision * 16 + row, s.user_id, s.modality, s.vector) for row, s in enumerate(states)
        ]
        states = [s for s in states if s.revision < 2**62]
        self.index.apply(embeddings(states))
        self.model.apply(states)

    @rule(asset_id=st.sampled_from(IDS), step=st.integers(1, 3), vector=vectors_of_pool, user=st.sampled_from(USERS))
    def renew(self, asset_id: str, step: int, vector: Float16s, user: str) -> None:
        known = self.model.held.get(asset_id)
        revision = min(known.revision if known else 0, 2**62) + step * 16
        modality = MODALITIES[step % 2] if known is None or step == 3 else known.modality
        state = State(asset_id, revision, user, modality, vector)
        self.index.apply(embeddings([state]))
        self.model.apply([state])

    @rule(
        modality=st.sampled_from(MODALITIES),
        lines=st.lists(st.tuples(seeds_of_pool, st.sampled_from([*USERS, "stranger"])), max_size=5),
        k=st.sampled_from([1, 2, 3, 10, 40]),
    )
    def search(self, modality: str, lines: list[tuple[Float32s, str]], k: int) -> None:
        seeds = np.array([seed for seed, _ in lines], np.float32).reshape(len(lines), D)
        assert_answers(self.index, self.model, modality, seeds, [user for _, user in lines], k)

    @precondition(lambda self: self.model.held)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """An old or equal message changes nothing."""
        state = self.model.held[data.draw(st.sampled_from(sorted(self.model.held)))]
        older = data.draw(st.integers(-1, state.revision))
        self.index.apply(embeddings([State(state.asset_id, older, "bob", "text", _POOL[0])]))

    @rule()
    def save_and_restore(self) -> None:
        path = Path(self._folder) / "index.snapshot"
        self.index.snapshot(path, {0: 5, 11: 2**40}, "source", TAKEN_AT_S)
        self.index = LiveIndex(*self.shape)
        assert self.index.restore(path, "source").positions == {0: 5, 11: 2**40}

    @invariant()
    def same_content(self) -> None:
        assert_same_content(self.index, self.model)

    def teardown(self) -> None:
        self._bounded.__exit__(None, None, None)

    _folder = ""


@pytest.mark.parametrize("bounds", BOUNDS)
def test_any_interleaving_agrees_with_brute_force(bounds: str, tmp_path: Path) -> None:
    machine = type("Bounded", (Interleaving,), {"bounds": bounds, "_folder": str(tmp_path)})
    machine.TestCase.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)  # type: ignore[attr-defined]
    machine.TestCase("runTest").runTest()  # type: ignore[attr-defined]


def crowd(n: int, d: int, groups: int, users: int, seed: int) -> list[State]:
    """Assets in tight groups, a third of them exact copies: the front of every list is crowded."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((groups, d))
    which = rng.integers(0, groups, n)
    noise = np.where(rng.random((n, 1)) < 1 / 3, 0, 0.05)
    vectors = unit(centres[which] + noise * rng.standard_normal((n, d))).astype(np.float16)
    owners = rng.integers(0, users, n)
    return [State(f"a{row:05}", 1, f"u{owners[row]}", "image", vectors[row]) for row in range(n)]


def filled(states: Sequence[State], segment_rows: int = 64, batch: int = 500) -> LiveIndex:
    d = len(next(s.vector for s in states if s.vector is not None))
    index = LiveIndex(d, segment_rows, 0.25)
    for start in range(0, len(states), batch):
        index.apply(embeddings(states[start : start + batch], d))
    return index


def ask(states: Sequence[State], rows: Sequence[int]) -> tuple[Float32s, list[str]]:
    """Seeds close to some assets, asked for by their owners."""
    chosen = [states[row] for row in rows]
    seeds = np.array([state.vector for state in chosen], np.float32)
    return unit(seeds + np.float32(0.01) * np.sin(np.arange(seeds.shape[1]))), [state.user_id for state in chosen]


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("users", [2, 1000])
def test_crowded_fronts_are_exact(users: int, bounds: str) -> None:
    """Copies, own assets and dead ones before the k-th place, in every part: still exact, in order of score and id."""
    states = crowd(1500, 32, groups=4, users=users, seed=users)
    model, index = Model(), filled(states)
    model.apply(states)
    removals = [State(state.asset_id, 2) for state in states[::3]]
    index.apply(embeddings(removals, 32))
    model.apply(removals)
    seeds, owners = ask(states, range(0, 1500, 190))
    with bounded(bounds):
        for k in (1, 10, 120):
            assert_answers(index, model, "image", seeds, owners, k)


def test_the_answer_depends_on_the_content_alone() -> None:
    """Insertion order, batches, segments, updates on the way, and which seeds are asked together make no difference."""
    states = crowd(900, 32, groups=3, users=20, seed=3)
    seeds, owners = ask(states, range(0, 900, 45))
    together = answers(filled(states, segment_rows=2048).search("image", seeds, owners, 25))
    order = np.random.default_rng(1).permutation(len(states))
    shuffled = [states[row] for row in order]
    detour = [State(s.asset_id, 0, "u1", "text", states[0].vector) for s in states[::2]] + shuffled
    other = filled(detour, segment_rows=37, batch=11)

    assert answers(other.search("image", seeds, owners, 25)) == together
    for row, line in enumerate(together):
        assert answers(other.search("image", seeds[row : row + 1], owners[row : row + 1], 25)) == [line]


def test_nearly_equal_vectors_are_ordered_by_their_true_cosine() -> None:
    """Vectors that differ in the last bit of float16 are told apart, also where float32 sums would mix them up."""
    d = 256
    rng = np.random.default_rng(5)
    base = unit(rng.standard_normal(d)).astype(np.float16)[0]
    states = []
    for number in range(400):
        vector = base.copy()
        places = rng.integers(0, d, 3)
        vector[places] = np.nextafter(vector[places], np.float16(2 * (number % 2) - 1))
        states.append(State(f"a{number:03}", 1, "ann", "image", vector))
    model, index = Model(), filled(states, segment_rows=32)
    model.apply(states)
    for seed in unit(base.astype(np.float64) + 0.2 * rng.standard_normal((8, d))):
        assert_answers(index, model, "image", seed[None], ["bob"], 30)


def test_a_flood_of_copies_costs_no_exactness() -> None:
    """Of thousands of copies of two pictures that differ in one bit, the nearer come first, in order of their ids."""
    vectors = np.repeat(unit(np.arange(1.0, 33.0)).astype(np.float16), 2, axis=0)
    vectors[1, 0] = np.nextafter(vectors[1, 0], np.float16(0))
    states = [State(f"a{row:05}", 1, f"u{row % 3}", "image", vectors[row % 2]) for row in range(6000)]
    model, index = Model(), filled(states[::-1], segment_rows=1024, batch=4096)
    model.apply(states)
    seeds = np.repeat(unit(vectors[0]), 8, axis=0)
    assert_answers(index, model, "image", seeds, [f"u{row % 4}" for row in range(8)], 4)
    assert_answers(index, model, "image", seeds, [f"u{row % 4}" for row in range(8)], 2500)


def test_a_user_with_most_of_the_index_gets_others() -> None:
    """Thousands of own assets nearer than any other hide none of the others."""
    near = unit(np.ones(32)).astype(np.float16)[0]
    rng = np.random.default_rng(2)
    own = [State(f"own{row}", 1, "heavy", "image", near) for row in range(4000)]
    far = unit(rng.standard_normal((50, 32))).astype(np.float16)
    others = [State(f"other{row:02}", 1, "light", "image", vector) for row, vector in enumerate(far)]
    states = own[:2000] + others + own[2000:]
    model, index = Model(), filled(states, segment_rows=512)
    model.apply(states)
    assert_answers(index, model, "image", unit(np.ones((2, 32))), ["heavy", "light"], 10)
    assert_answers(index, model, "image", unit(np.ones((1, 32))), ["heavy"], 60)


def test_nothing_to_find() -> None:
    """An empty index, an unknown modality, no seeds and no others give hits of the right form."""
    index = LiveIndex(D, 4, 0.25)
    seed = unit(np.ones((1, D)))
    for hits in (index.search("image", seed, ["ann"], 3), index.search("image", seed[:0], [], 3)):
        assert not any(answers(hits))
        assert hits.vectors.shape == (0, D)
    index.apply(embeddings([State("a", 1, "ann", "image", _POOL[0])]))
    assert answers(index.search("video", seed, ["ann"], 3)) == [[]]
    assert answers(index.search("image", seed, ["ann"], 3)) == [[]]
    assert index.search("image", seed, ["ann"], 3).rows.tolist() == [[-1, -1, -1]]
    assert len(answers(index.search("image", seed, ["bob"], 3))[0]) == 1
    index.apply(embeddings([]))
    assert index.sizes() == {"image": 1}
    assert index.vectors([], np.empty(0, np.int64))[1].shape == (0, D)


def test_what_cannot_be_right_is_refused_and_changes_nothing() -> None:
    """Vectors that are no unit vectors, columns of different lengths, seeds and k out of range."""
    good = State("good", 1, "ann", "image", _POOL[0])
    index = filled([good], segment_rows=4)
    for vector in (np.full(D, np.nan), np.zeros(D), np.full(D, np.inf), 3 * _POOL[0]):
        with pytest.raises(ValueError, match="'bad' has a vector of length"):
            index.apply(
                embeddings(
                    [State("new", 1, "ann", "image", _POOL[0]), State("bad", 1, vector=vector.astype(np.float16))]
                )
            )
        with pytest.raises(ValueError, match="seed 1 of user 'bob' has a vector of length"):
            index.search("image", np.array([_POOL[0], vector], np.float32), ["ann", "bob"], 1)
    with pytest.raises(ValueError, match="d is 8"):
        index.apply(embeddings([State("new", 1, "ann", "image", np.full(4, 0.5, np.float16))], 4))
    for shape, users, k in (((1, 4), ["ann"], 1), ((2, D), ["ann"], 1), ((1, D), ["ann"], 0)):
        with pytest.raises(ValueError, match="seeds"):
            index.search("image", unit(np.ones(shape)), users, k)
    assert index.sizes() == {"image": 1}


def test_any_order_and_number_of_deliveries_gives_the_same_content() -> None:
    """The newest revision of each asset wins, also over a removal, whatever comes first."""
    rng = np.random.default_rng(11)
    log = [
        State(IDS[asset], revision, USERS[(asset + revision) % 3], MODALITIES[revision % 3], _POOL[revision % 8])
        if (asset + revision) % 4
        else State(IDS[asset], revision)
        for asset in range(len(IDS))
        for revision in range(6)
    ]
    model = Model()
    model.apply(log)
    for _ in range(20):
        twice = [log[row] for row in rng.permutation(np.repeat(np.arange(len(log)), 2))]
        index = filled(twice, segment_rows=4, batch=int(rng.integers(1, 40)))
        assert_same_content(index, model)
        assert len(index._state.live) + len(index._state.removed) == len(model.held)


@given(st.lists(st.tuples(st.booleans(), st.lists(st.sampled_from(IDS), max_size=6)), max_size=30), st.integers(1, 4))
def test_the_sample_is_the_live_assets_of_lowest_hash_whatever_happened(
    steps: list[tuple[bool, list[str]]], size: int
) -> None:
    sample, live = Sample(size), set[str]()
    for put, asset_ids in steps:
        if put:
            live |= set(asset_ids)
            sample.put(asset_ids)
        else:
            live -= set(asset_ids)
            sample.drop(asset_ids, partial(list, live))
        assert sample.asset_ids == lowest(live, size)


def test_a_sample_is_another_one_only_where_what_it_names_has_changed() -> None:
    """What is measured of it is measured again then."""
    sample = Sample(2)
    sample.put([*"abcdefgh"])
    before = sample.asset_ids
    (out,) = [name for name in "abcdefgh" if name == lowest("abcdefgh", 8)[7]]

    sample.put([out])
    sample.drop([out], list)
    assert sample.asset_ids is before
    sample.put([before[0]])
    assert sample.asset_ids == before and sample.asset_ids is not before


def lowest(asset_ids: Iterable[str], size: int) -> tuple[str, ...]:
    return tuple(sorted(asset_ids, key=lambda name: blake2b(name.encode(), digest_size=8).digest())[:size])


def test_a_catalogue_is_a_function_of_what_lives() -> None:
    states = crowd(700, 16, 9, 5, seed=3)
    moved = [replace(state, modality="text", revision=state.revision + 1) for state in states[:60]]
    removed = [replace(state, vector=None, revision=state.revision + 1) for state in states[60:90]]
    changed = [replace(state, vector=states[0].vector, revision=state.revision + 1) for state in states[90:120]]
    at_once, in_turn = filled([*states[120:], *moved, *removed, *changed]), filled(states)
    in_turn.catalogues()
    for later in (changed, moved, removed):
        in_turn.apply(embeddings(later, 16))

    (image,) = at_once.catalogues().values()  # of texts there are too few
    (again,) = in_turn.catalogues().values()

    assert (again.dimensions, again.mean.tolist()) == (image.dimensions, image.mean.tolist())
    live = {state.asset_id: state.vector for state in [*changed, *states[120:]] if state.vector is not None}
    vectors = np.stack([live[name] for name in lowest(live, 512)]).astype(np.float32)
    expected = Catalogue.of(vectors)
    assert (image.dimensions, image.mean.tolist()) == (expected.dimensions, expected.mean.tolist())


def test_a_catalogue_goes_with_its_assets() -> None:
    states = crowd(120, 16, 9, 5, seed=4)
    index = filled(states)
    assert list(index.catalogues()) == ["image"]

    index.apply(embeddings([replace(state, vector=None, revision=state.revision + 1) for state in states[:30]], 16))

    assert index.catalogues() == {}


def test_memory_follows_what_lives() -> None:
    """Updates and removals do not pile up: segments that are mostly dead are given back, a large batch's too."""
    states = crowd(600, D, groups=3, users=5, seed=1)
    index = filled(states, segment_rows=16)
    for revision in range(2, 30):
        renewed = [State(s.asset_id, revision, s.user_id, s.modality, s.vector) for s in states]
        index.apply(embeddings(renewed))
    view = index._state.arena.views["image"]
    assert sum(part.count - part.dead_count for part in view) == 600
    assert sum(part.count for part in view) <= 600 / 0.75 + 2 * 16
    index.apply(embeddings([State(s.asset_id, 99) for s in states]))
    assert len(index._state.arena.views["image"]) <= 1


def test_a_view_stays_as_it_was() -> None:
    """Whoever holds a view sees what it showed, whatever is written, moved and freed afterwards."""
    index = filled(crowd(100, D, groups=3, users=5, seed=1), segment_rows=16)
    view = index._state.arena.views["image"]
    before = [part.live_rows() for part in view]
    for revision in (2, 3, 4):
        index.apply(embeddings([State(f"a{row:05}", revision, "x", "text", _POOL[1]) for row in range(100)]))
    for old, part in zip(before, view, strict=True):
        now = part.live_rows()
        assert old.asset_ids.tolist() == now.asset_ids.tolist()
        assert np.array_equal(old.vectors, now.vectors)
        assert np.array_equal(old.users, now.users)
    assert index.sizes() == {"image": 0, "text": 100}


def test_names_come_back_as_they_were_put() -> None:
    """Names hold numbers over many dictionaries; what is dropped is absent."""
    names, texts = Names(), [f"n{number}" for number in range(2000)]
    names.put(texts, range(2000))
    names.drop([*texts[::2], "never"])
    assert names.get([*texts, "never"], -5).tolist() == [n if n % 2 else -5 for n in range(2000)] + [-5]
    assert dict(zip(*names.items(), strict=True)) == {f"n{n}": n for n in range(1, 2000, 2)}


class Racing:
    """A writer that applies batch after batch while others search; batch i makes version i + 1."""

    def __init__(self, batches: Sequence[Sequence[State]], d: int) -> None:
        self.batches = batches
        self.d = d
        self.index = LiveIndex(d, 32, 0.25)
        self.applied = 0
        self._turns = threading.Semaphore(0)
        self.errors: list[BaseException] = []

    def write(self) -> None:
        for batch in self.batches:
            self._turns.acquire(timeout=0.02)  # or the writer might be through before the others have done much
            self.index.apply(embeddings(batch, self.d))
            self.applied += 1

    def going_on(self) -> bool:
        """Asked before each round of another's work: lets the writer write its next batch beside it."""
        self._turns.release()
        return self.applied < len(self.batches) and not self.errors

    def run(self, *works: Any) -> None:
        """Run the works and the writer side by side until all are through."""

        def guarded(work: Any) -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - re-raised below
                self.errors.append(error)

        threads = [threading.Thread(target=guarded, args=(work,)) for work in (*works, self.write)]
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)  # many more interleavings than usual
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
        finally:
            sys.setswitchinterval(interval)
        assert not any(thread.is_alive() for thread in threads)
        for error in self.errors:
            raise error


def racing(seed: int) -> Racing:
    """Batches of uploads, updates, moves between users and modalities, and removals of few assets near each other."""
    rng = np.random.default_rng(seed)
    pool = [state.vector for state in crowd(60, 16, groups=2, users=3, seed=seed)]
    batches = []
    for version in range(250):
        states = []
        for asset in rng.choice(80, 12, replace=False).tolist():
            live = rng.random() > 0.25
            modality, owner = MODALITIES[int(rng.random() < 0.1)], f"u{rng.integers(0, 3)}"
            vector = pool[rng.integers(0, len(pool))] if live else None
            states.append(State(f"a{asset}", version + 1, owner, modality, vector))
        batches.append(states)
    return Racing(batches, 16)


def test_searches_beside_a_writer_see_one_moment_each() -> None:
    """Each search answers exactly what brute force does for the state of one moment while it ran, ties included."""
    race = racing(21)
    seeds = unit(np.random.default_rng(1).standard_normal((3, 16)))
    owners, k = ["u0", "u1", "stranger"], 7
    seen: list[tuple[int, int, list[list[tuple[str, str, float]]]]] = []

    def search() -> None:
        while race.going_on():
            before = race.applied
            hits = race.index.search("image", seeds, owners, k)
            seen.append((before, race.applied + 1, answers(hits)))

    race.run(search, search)
    model, expected = Model(), []
    for batch in ((), *race.batches):
        model.apply(batch)
        expected.append([model.search("image", seed, owner, k) for seed, owner in zip(seeds, owners, strict=True)])
    assert len(seen) > 50
    for first, last, found in seen:
        assert found in expected[first : last + 1], f"no state from {first} to {last} gives {found}"


def test_lookups_beside_a_writer_are_right_or_missing() -> None:
    """A vector that is given out is that of the revision asked for, while assets are renewed and moved."""
    race = racing(22)
    history = {(s.asset_id, s.revision): s.vector for batch in race.batches for s in batch}
    ids = [f"a{asset}" for asset in range(20)]
    revisions = np.zeros((len(race.batches) + 1, len(ids)), np.int64)  # after each batch
    for version, batch in enumerate(race.batches, 1):
        written = {state.asset_id for state in batch}
        revisions[version] = np.where([asset_id in written for asset_id in ids], version, revisions[version - 1])
    found = [0]

    def look_up() -> None:
        while race.going_on():
            known = revisions[race.applied]
            held, vectors = race.index.vectors(ids, known)
            found[0] += int(held.sum())
            for asset_id, revision, is_held, vector in zip(ids, known.tolist(), held.tolist(), vectors, strict=True):
                expected = history.get((asset_id, revision))
                assert not is_held or (expected is not None and np.array_equal(vector, expected))
                assert is_held or not vector.any()

    race.run(look_up)
    assert found[0] > 20


def test_a_snapshot_beside_a_writer_is_of_one_moment(tmp_path: Path) -> None:
    """A snapshot taken while batches go on holds what its positions say, or later, and reading on gives the end."""
    race = racing(23)
    taken: list[int] = []

    def save() -> None:
        while len(taken) < 12 and race.going_on():
            taken.append(race.applied)
            race.index.snapshot(tmp_path / f"{len(taken) - 1}", {0: race.applied}, "s", TAKEN_AT_S)

    race.run(save)
    end, moments = Model(), []
    for batch in ((), *race.batches):
        end.apply(batch)
        moments.append({state.asset_id: state.revision for state in end.held.values()})
    for number in range(len(taken)):
        index = LiveIndex(16, 32, 0.25)
        position = index.restore(tmp_path / f"{number}", "s").positions[0]
        revisions = dict(zip(*index._state.removed.items(), strict=True))
        ids, slots = index._state.live.items()
        rows = index._state.arena.gather(np.array(slots, np.int64))[1]
        revisions.update(zip(ids, rows.revisions.tolist(), strict=True))
        assert revisions in moments[position:]
        for batch in race.batches[position:]:
            index.apply(embeddings(batch, 16))
        assert_same_content(index, end)


def saved(path: Path) -> Model:
    states = crowd(40, D, groups=3, users=4, seed=9)
    strange = ["é" * 255, "\ud800", "", "line\nbreak", "𝒳"]
    states += [State(name, 5, name, "text", _POOL[1]) for name in strange]
    states += [State(state.asset_id, 7) for state in states[:5]] + [State("never seen", 3)]
    model, index = Model(), filled(states, segment_rows=16)
    model.apply(states)
    index.snapshot(path, {0: 17, 3: 4}, "cluster/topic/model", TAKEN_AT_S)
    return model


def test_a_snapshot_brings_everything_back(tmp_path: Path) -> None:
    """Live and removed assets, strange names, owners and positions; an old message does not bring an asset back."""
    model = saved(tmp_path / "deep" / "s")
    index = LiveIndex(D, 5, 0.25)
    header = index.restore(tmp_path / "deep" / "s", "cluster/topic/model")
    assert (header.positions, header.taken_at_s) == ({0: 17, 3: 4}, TAKEN_AT_S)
    assert_same_content(index, model)
    assert_answers(index, model, "text", unit(_POOL[1]), ["é" * 255], 10)
    index.apply(
        embeddings([State("a00000", 6, "u0", "image", _POOL[0]), State("never seen", 2, "u0", "text", _POOL[0])])
    )
    assert_same_content(index, model)
    assert [entry.name for entry in (tmp_path / "deep").iterdir()] == ["s"]


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_torn_or_changed_snapshot_is_refused(tmp_path: Path, data: st.DataObject) -> None:
    """Cut anywhere, longer than written or changed in one bit anywhere: refused, and the index keeps what it had."""
    whole = tmp_path / "whole"
    if not whole.exists():
        saved(whole)
    content = bytearray(whole.read_bytes())
    at = data.draw(
        st.one_of(st.integers(0, len(content) - 1), st.integers(0, 400), st.integers(1, 99).map(lambda n: -n))
    )
    how = data.draw(st.sampled_from(["cut", "flip", "longer", "zeros"]))
    if how == "cut":
        del content[at:]
    elif how == "longer":
        content += content[at:]
    elif how == "flip":
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        content[at:] = bytes(len(content[at:]))
    if content == whole.read_bytes():
        return
    (tmp_path / "broken").write_bytes(content)
    index = filled([State("kept", 1, "ann", "image", _POOL[0])], segment_rows=4)
    with pytest.raises(SnapshotError, match="broken"):
        index.restore(tmp_path / "broken", "cluster/topic/model")
    assert index.sizes() == {"image": 1}


def test_a_snapshot_of_something_else_is_refused(tmp_path: Path) -> None:
    """Another source, another dimension, no file, a folder: the error says which."""
    path = tmp_path / "s"
    saved(path)
    with pytest.raises(SnapshotError, match="source 'cluster/topic/model'; expected 'other'"):
        LiveIndex(D, 4, 0.25).restore(path, "other")
    with pytest.raises(SnapshotError, match="dimension 8; expected 16"):
        LiveIndex(16, 4, 0.25).restore(path, "cluster/topic/model")
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(SnapshotError, match="cannot read"):
            LiveIndex(D, 4, 0.25).restore(missing, "cluster/topic/model")


def test_a_snapshot_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path) -> None:
    """The file size limit of the operating system strikes in the middle of writing."""
    path = tmp_path / "s"
    model = saved(path)
    index = LiveIndex(D, 4, 0.25)
    index.restore(path, "cluster/topic/model")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(SnapshotError, match="cannot write"):
            index.snapshot(path, {0: 99}, "cluster/topic/model", TAKEN_AT_S)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [entry.name for entry in tmp_path.iterdir()] == ["s"]
    assert LiveIndex(D, 4, 0.25).restore(path, "cluster/topic/model").positions == {0: 17, 3: 4}
    assert_same_content(index, model)


def test_what_a_killed_writer_left_is_swept_and_a_living_one_spared(tmp_path: Path) -> None:
    """A file that nobody writes to any longer goes with the next snapshot; one that is being written stays."""
    dead, living = tmp_path / ".s[1].dead", tmp_path / ".s[1].living"
    dead.touch()
    with living.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        saved(tmp_path / "s[1]")
        assert sorted(entry.name for entry in tmp_path.iterdir()) == [".s[1].living", "s[1]"]
    saved(tmp_path / "s[1]")
    assert [entry.name for entry in tmp_path.iterdir()] == ["s[1]"]


def test_a_slot_is_found_by_its_segment() -> None:
    """Slots of freed segments and no slot at all are not found; the others give their rows."""
    arena = Arena(D, 2)
    index = filled([State(f"a{row}", 1, "ann", "image", _POOL[row % 6]) for row in range(6)], segment_rows=2)
    slots = index._state.live.get([f"a{row}" for row in range(6)], -1)
    assert arena.gather(slots)[0].tolist() == [False] * 6
    index.apply(embeddings([State("a2", 2), State("a3", 2)]))
    found, rows = index._state.arena.gather(np.append(slots, -1))
    assert found.tolist() == [True, True, False, False, True, True, False]
    assert rows.asset_ids.tolist() == ["a0", "a1", None, None, "a4", "a5", None]
    assert np.array_equal(rows.vectors[5], _POOL[5])
