"""READ FIRST: the two use cases, from an upload to its owner's refreshed recommendations.

`Ingest` takes a batch of input records to the truth and announces what changed. `Refresh` takes a batch of changed
profiles to published recommendations. `follow` keeps the index current. Only this module calls more than one step;
what it needs of them stands in `parts`. Every effect may be repeated: the state is a function of the set of events
alone.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from zccr_stream import metrics
from zccr_stream.events import (
    MODALITIES,
    AssetDeleted,
    AssetUploaded,
    BadInputError,
    CorruptRecordError,
    InputEvent,
    ProfileChanged,
    Recommendations,
    Record,
    TryLaterError,
    UserDeleted,
    dump_embeddings,
    dump_profile_changes,
    dump_recommendations,
    parse,
    parse_embeddings,
    parse_profile_changed,
)
from zccr_stream.interests import Area, AreaRule, Profile, find_areas
from zccr_stream.parts import (
    Announcement,
    Content,
    Contents,
    Encoder,
    Follows,
    Index,
    MessageTooLargeError,
    Outcome,
    Ownership,
    Publisher,
    Writes,
)
from zccr_stream.ranking import Hits, RankingRule, rank
from zccr_stream.scores import POOL, calibrate

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """An upload with its content, and the row of its record in the batch."""

    row: int
    upload: AssetUploaded
    content: Content


class Ingest:
    """From a batch of input records to the truth, and from there to whoever follows it.

    Safe to run in several threads at once; one batch is encoded at a time.
    """

    def __init__(
        self, contents: Contents, encoder: Encoder, ownership: Ownership, publisher: Publisher, topic_prefix: str
    ) -> None:
        self._contents = contents
        self._encoder = encoder
        self._ownership = ownership
        self._publisher = publisher
        self._topic_prefix = topic_prefix
        self._encoding = threading.Lock()

    def __call__(self, records: Sequence[Record]) -> list[Outcome]:
        """Ingest a batch; one outcome per record, None where it is done."""
        events, outcomes = self._parse(records)
        fresh = self._fresh(events)
        loaded = self._load(events, fresh, outcomes)
        uploads, vectors = self._encode(loaded, outcomes)
        self._write(events, fresh, uploads, vectors)
        return outcomes

    def sweep(self, older_than_s: float, limit: int) -> int:
        """Announce what a crash left unannounced; the number of assets and users announced."""
        with self._ownership.leftovers(older_than_s, limit) as announcement:
            return self._publish(announcement)

    def _parse(self, records: Sequence[Record]) -> tuple[list[InputEvent | None], list[Outcome]]:
        events: list[InputEvent | None] = [None] * len(records)
        outcomes: list[Outcome] = [None] * len(records)
        with metrics.stage("parse", len(records)):
            for row, record in enumerate(records):
                try:
                    events[row] = parse(record, record.topic.removeprefix(self._topic_prefix))
                except BadInputError as error:
                    outcomes[row] = error
                    metrics.failed("parse", "bad_input")
        return events, outcomes

    def _fresh(self, events: Sequence[InputEvent | None]) -> list[int]:
        """Rows of the events that the truth does not hold yet: redelivered ones cost no fetch and no encoding."""
        rows = [row for row, event in enumerate(events) if event is not None]
        standing = self._ownership.standing([event for event in events if event is not None])
        return [row for row, stands in zip(rows, standing, strict=True) if not stands]

    def _load(
        self, events: Sequence[InputEvent | None], fresh: Sequence[int], outcomes: list[Outcome]
    ) -> list[_Loaded]:
        """Load the fresh uploads: all, not only the greatest per asset, which may turn out to be bad input."""
        wanted = [(row, event) for row in fresh if isinstance(event := events[row], AssetUploaded)]
        loaded: list[_Loaded] = []
        with metrics.stage("fetch", len(wanted)):
            contents = self._contents.load([upload for _, upload in wanted])
            for (row, upload), content in zip(wanted, contents, strict=True):
                if isinstance(content, BadInputError | TryLaterError):
                    outcomes[row] = content
                    metrics.failed("fetch", "bad_input" if isinstance(content, BadInputError) else "try_later")
                else:
                    loaded.append(_Loaded(row, upload, content))
        return loaded

    def _encode(
        self, loaded: Sequence[_Loaded], outcomes: list[Outcome]
    ) -> tuple[list[AssetUploaded], npt.NDArray[np.float16]]:
        """The uploads that could be encoded, and their vectors, (n, d) float16.

        These are stored, published and searched alike, so that everything derives from the same bytes.
        """
        vectors = np.zeros((len(loaded), self._encoder.dimension), np.float16)
        for modality in MODALITIES:
            numbers = [number for number, one in enumerate(loaded) if one.upload.modality == modality]
            if numbers:
                with self._encoding, metrics.stage("encode", len(numbers)):
                    encoded = self._encoded(modality, [loaded[number].content for number in numbers])
                    for number, vector in zip(numbers, encoded, strict=True):
                        if isinstance(vector, BadInputError):
                            outcomes[loaded[number].row] = vector
                            metrics.failed("encode", "bad_input")
                        else:
                            vectors[number] = vector
        sound = [number for number, one in enumerate(loaded) if outcomes[one.row] is None]
        return [loaded[number].upload for number in sound], vectors[sound]

    def _encoded(self, modality: str, contents: Sequence[Content]) -> Sequence[npt.NDArray[np.float32] | BadInputError]:
        """Encode n contents together; where one is refused, in halves, so that it costs only itself."""
        try:
            encoded = self._encoder.encode(modality, contents)
        except BadInputError as error:
            if len(contents) == 1:
                return [error]
            half = len(contents) // 2
            return [*self._encoded(modality, contents[:half]), *self._encoded(modality, contents[half:])]
        assert np.allclose(np.linalg.norm(encoded, axis=1), 1, atol=1e-2), "the encoder gave no unit vectors"
        return list(encoded)

    def _write(
        self,
        events: Sequence[InputEvent | None],
        fresh: Sequence[int],
        uploads: Sequence[AssetUploaded],
        vectors: npt.NDArray[np.float16],
    ) -> None:
        """Write what is new and announce it, and with it what an earlier try of the same events left unannounced."""
        writes = Writes(
            model=self._encoder.model,
            uploads=uploads,
            vectors=vectors,
            deletions=[event for row in fresh if isinstance(event := events[row], AssetDeleted)],
            user_deletions=[event for row in fresh if isinstance(event := events[row], UserDeleted)],
        )
        with metrics.stage("own", len(uploads) + len(writes.deletions) + len(writes.user_deletions)):
            touched = self._ownership.write(writes)
        assets = {event.asset_id for event in events if isinstance(event, AssetUploaded | AssetDeleted)}
        users = {event.user_id for event in events if isinstance(event, AssetUploaded | UserDeleted)}
        with self._ownership.announcing(
            sorted(assets.union(touched.asset_ids)), sorted(users.union(touched.user_ids))
        ) as announcement:
            self._publish(announcement)

    def _publish(self, announcement: Announcement) -> int:
        size = len(announcement.embeddings) + len(announcement.changes)
        if size:
            with metrics.stage("announce", size):
                self._publisher.publish(
                    [*dump_embeddings(announcement.embeddings), *dump_profile_changes(announcement.changes)]
                )
        return size


class Refresh:
    """From a batch of changed profiles to their published recommendations."""

    def __init__(
        self,
        ownership: Ownership,
        index: Index,
        publisher: Publisher,
        model: str,
        areas: Callable[[], AreaRule],
        ranking: RankingRule,
        assets_max: int,
        clock_ns: Callable[[], int],
    ) -> None:
        self._ownership = ownership
        self._index = index
        self._publisher = publisher
        self._model = model
        self._areas = areas
        self._ranking = ranking
        self._assets_max = assets_max
        self._clock_ns = clock_ns

    def __call__(self, records: Sequence[Record]) -> list[Outcome]:
        """Refresh the users behind a batch of `profile-changed`: once each, however many changes the batch holds."""
        changes: list[ProfileChanged] = []
        outcomes: list[Outcome] = [None] * len(records)
        for row, record in enumerate(records):
            try:
                changes.append(parse_profile_changed(record))
            except BadInputError as error:
                outcomes[row] = error
                metrics.failed("profile", "bad_input")
        self.refresh(sorted({change.user_id for change in changes}))
        now_ms = self._clock_ns() / 1e6
        metrics.observe_event_to_recommendation(
            [(now_ms - change.received_at_ms) / 1e3 for change in changes if change.received_at_ms >= 0]
        )
        return outcomes

    def refresh(self, user_ids: Sequence[str]) -> None:
        """Read the users' profiles, find their areas, search, rank and publish, in groups that fit in memory."""
        for group in groups(user_ids, self._ownership.sizes(user_ids).tolist(), self._assets_max):
            with metrics.stage("profile", len(group)):
                profiles = self._ownership.profiles(group, self._index)
            with metrics.stage("areas", len(profiles)):
                rule = self._areas()
                areas = [find_areas(profile, rule) for profile in profiles]
            _report_areas(areas)
            refreshed = self._recommend(profiles, areas, rule, self._ranking)
            _report_lists(refreshed, self._ranking.k)
            with metrics.stage("publish", len(refreshed)):
                try:
                    self._publisher.publish([dump_recommendations(recommendations) for recommendations in refreshed])
                except MessageTooLargeError:
                    for profile, of_user in zip(profiles, areas, strict=True):
                        self._publish_fitting(profile, of_user, rule)

    def _publish_fitting(self, profile: Profile, areas: Sequence[Area], rule: AreaRule) -> None:
        """Publish one user's recommendations with lists as long as their topic takes.

        Raises:
            MessageTooLargeError: it does not even take lists of one.
        """
        ranking = self._ranking
        while True:
            refreshed = self._recommend([profile], [areas], rule, ranking)
            try:
                return self._publisher.publish([dump_recommendations(recommendations) for recommendations in refreshed])
            except MessageTooLargeError as error:
                if ranking.k == 1:
                    raise
                ranking = replace(ranking, k=ranking.k // 2)
                logger.warning("%s: now lists of %d for %r", error, ranking.k, profile.user_id)

    def _recommend(
        self, profiles: Sequence[Profile], areas: Sequence[Sequence[Area]], found_by: AreaRule, ranking: RankingRule
    ) -> list[Recommendations]:
        return recommend(self._index, profiles, areas, found_by, ranking, self._model, self._clock_ns)


def groups(user_ids: Sequence[str], sizes: Sequence[int], assets_max: int) -> Iterator[list[str]]:
    """Split users, in order, into groups that together have at most `assets_max` assets; a user with more is alone."""
    group: list[str] = []
    assets = 0
    for user_id, size in zip(user_ids, sizes, strict=True):
        if group and assets + size > assets_max:
            yield group
            group, assets = [], 0
        group.append(user_id)
        assets += size
    if group:
        yield group


def recommend(
    index: Index,
    profiles: Sequence[Profile],
    areas: Sequence[Sequence[Area]],
    found_by: AreaRule,
    rule: RankingRule,
    model: str,
    clock_ns: Callable[[], int],
) -> list[Recommendations]:
    """Search for a batch of profiles with the seeds of their areas, and rank what is found.

    Args:
        index: What is searched.
        profiles: u profiles.
        areas: u lists of areas, one list a profile.
        found_by: The rule of these areas, with the catalogues they were found in.
        rule: How many a list and the feed hold, and by which scores.
        model: The space.
        clock_ns: When they are generated.
    """
    if rule.calibrated and not set(MODALITIES) <= set(found_by.catalogues):
        rule = replace(rule, calibrated=False, merged=False)  # until enough is known of every modality
    found = _search(index, profiles, areas, found_by, rule)
    with metrics.stage("rank", len(profiles)):
        recommended = []
        first = 0
        for profile, areas_of_user in zip(profiles, areas, strict=True):
            lines = slice(first, first + len(areas_of_user))
            first += len(areas_of_user)
            hits = {modality: found[modality].lines(lines) for modality in found}
            recommended.append(rank(profile, areas_of_user, hits, rule, model, clock_ns()))
        return recommended


def _search(
    index: Index,
    profiles: Sequence[Profile],
    areas: Sequence[Sequence[Area]],
    found_by: AreaRule,
    rule: RankingRule,
) -> dict[str, Hits]:
    """Search every modality's index with every seed of the batch at once (paper, section 3.3)."""
    every = [area for areas_of_user in areas for area in areas_of_user]
    owners = [profile.user_id for profile, areas_of_user in zip(profiles, areas, strict=True) for _ in areas_of_user]
    if not every:
        return {}
    seeds = np.stack([area.seed for area in every])
    pool = rule.k * POOL if rule.calibrated else rule.k
    with metrics.stage("search", len(seeds)):
        found = {modality: index.search(modality, seeds, owners, pool) for modality in MODALITIES}
        if not rule.calibrated:
            return found
        return calibrate(found, every, found_by)


def _report_areas(areas: Sequence[Sequence[Area]]) -> None:
    for modality in MODALITIES:
        metrics.observe_areas(modality, [sum(area.modality == modality for area in of_user) for of_user in areas])


def _report_lists(refreshed: Sequence[Recommendations], k: int) -> None:
    for modality in MODALITIES:
        lengths = [len(area.recommended[modality]) for of_user in refreshed for area in of_user.areas]
        metrics.count_lists(modality, len(lengths), sum(length < k for length in lengths))


def follow(records: Sequence[Record], index: Follows, model: str, dimension: int) -> None:
    """Apply a batch of `asset-embedded`; what this program did not write is passed over."""
    with metrics.stage("apply", len(records)):
        try:
            embeddings = parse_embeddings(records, model, dimension)
        except CorruptRecordError:
            sound = [record for record in records if _is_sound(record, model, dimension)]
            embeddings = parse_embeddings(sound, model, dimension)
        index.apply(embeddings)


def _is_sound(record: Record, model: str, dimension: int) -> bool:
    try:
        parse_embeddings([record], model, dimension)
    except CorruptRecordError as error:
        logger.error("%s", error)
        metrics.failed("apply", "bad_input")
        return False
    return True
