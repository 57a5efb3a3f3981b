"""Rows of the truth as arrays: states of assets and profiles of users, vectors included.

A connection and ids come in. It does not know locks or snapshots: the transaction is the caller's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from zccr_stream.evaluation import Uploads
from zccr_stream.events import Embeddings
from zccr_stream.interests import Profile
from zccr_stream.ownership import binary, sessions
from zccr_stream.ownership import statements as sql
from zccr_stream.parts import HeldVectors


def states(connection: sa.Connection, asset_ids: Sequence[str], model: str, dimension: int) -> Embeddings:
    """The states of those of these assets that have one in this model's space, tombstones included, by id."""
    parameters = {"asset_ids": list(asset_ids), "model": model}
    return _embeddings(sessions.copy_out(connection, sql.COPY_STATES, parameters), model, dimension)


def live_assets(connection: sa.Connection, model: str, dimension: int, rows: int) -> Iterator[Embeddings]:
    """All live assets in this model's space, by id, in pages of at most `rows`."""
    after = ""
    while True:
        parameters = {"model": model, "after": after, "rows": rows}
        page = _embeddings(sessions.copy_out(connection, sql.COPY_LIVE_ASSETS, parameters), model, dimension)
        if not len(page):
            return
        yield page
        after = page.asset_ids[-1]


def uploads(connection: sa.Connection, user_ids: Sequence[str], model: str) -> list[Uploads]:
    """What of these users is live in this model's space, by id, without vectors."""
    return [
        Uploads(user_id, columns.asset_ids, columns.modalities, columns.occurred_at_ns)
        for user_id, columns in zip(user_ids, _all_owned(connection, user_ids, model), strict=True)
    ]


def _embeddings(stream: memoryview, model: str, dimension: int) -> Embeddings:
    """The states in a stream of `COPY_STATES` or `COPY_LIVE_ASSETS`."""
    rows = binary.load(stream)
    ids, owners, modalities, revisions, occurred, vectors = zip(*rows, strict=True) if rows else ((),) * 6
    live = np.array([vector is not None for vector in vectors], np.bool_)
    embeddings = np.zeros((len(rows), dimension), np.float16)
    embeddings[live] = np.frombuffer(b"".join(vector for vector in vectors if vector), "<f2").reshape(-1, dimension)
    return Embeddings(
        model=model,
        asset_ids=_texts(ids),
        user_ids=_texts(owners),
        modalities=_texts(modalities),
        revisions=binary.load_integers(b"".join(revisions)),
        occurred_at_ns=binary.load_integers(b"".join(occurred)),
        vectors=embeddings,
        live=live,
    )


def profiles(
    connection: sa.Connection, user_ids: Sequence[str], held: HeldVectors, model: str, dimension: int
) -> list[Profile]:
    """These users' live assets in this model's space, by id; vectors that `held` has are not read."""
    owned = _all_owned(connection, user_ids, model)
    asset_ids = [asset_id for columns in owned for asset_id in columns.asset_ids]
    revisions = np.concatenate([binary.load_integers(None), *(columns.revisions for columns in owned)])
    vectors = _vectors(connection, asset_ids, revisions, held, dimension)
    ends = np.cumsum([len(columns.asset_ids) for columns in owned])
    return [
        Profile(
            user_id=user_id,
            profile_version=columns.profile_version,
            asset_ids=columns.asset_ids,
            modalities=columns.modalities,
            occurred_at_ns=columns.occurred_at_ns,
            vectors=vectors[end - len(columns.asset_ids) : end],
        )
        for user_id, columns, end in zip(user_ids, owned, ends, strict=True)
    ]


class _Owned(NamedTuple):
    """A profile without its vectors."""

    profile_version: int
    asset_ids: list[str]
    modalities: list[str]
    revisions: npt.NDArray[np.int64]
    occurred_at_ns: npt.NDArray[np.int64]


def _all_owned(connection: sa.Connection, user_ids: Sequence[str], model: str) -> list[_Owned]:
    parameters = {"user_ids": list(user_ids), "model": model, "separator": sql.SEPARATOR}
    return [_owned(user) for user in binary.load(sessions.copy_out(connection, sql.COPY_PROFILES, parameters))]


def _owned(fields: Sequence[bytes | None]) -> _Owned:
    """Read a line of `COPY_PROFILES`; columns of no assets are null."""
    version, asset_ids, modalities, revisions, occurred = fields
    owned = _Owned(
        int.from_bytes(version or b"", "big"),
        asset_ids.decode().split(sql.SEPARATOR) if asset_ids else [],
        modalities.decode().split(sql.SEPARATOR) if modalities else [],
        binary.load_integers(revisions),
        binary.load_integers(occurred),
    )
    assert len(owned.asset_ids) == len(owned.modalities) == len(owned.revisions), "an identifier holds a separator"
    return owned


def _vectors(
    connection: sa.Connection,
    asset_ids: Sequence[str],
    revisions: npt.NDArray[np.int64],
    held: HeldVectors,
    dimension: int,
) -> npt.NDArray[np.float32]:
    """(n, d) vectors of live assets: those held at this revision, the rest from the database."""
    if not asset_ids:
        return np.zeros((0, dimension), np.float32)
    found, vectors = held.vectors(asset_ids, revisions)
    assert vectors.shape == (len(asset_ids), dimension), vectors.shape
    result = vectors.astype(np.float32)
    missing = sorted(np.flatnonzero(~found).tolist(), key=asset_ids.__getitem__)
    if missing:
        ids = [asset_ids[row] for row in missing]
        stream = sessions.copy_out(connection, sql.COPY_VECTORS, {"asset_ids": ids})
        result[missing] = binary.load_vectors(stream, len(ids), dimension)
    return result


def _texts(fields: Sequence[bytes | None]) -> list[str]:
    """Text, empty where there is none."""
    return [field.decode() if field else "" for field in fields]
