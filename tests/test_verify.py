"""What was published, held against the truth: the comparison by examples, and the command on a whole installation."""

import json
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from tests.installation import Installation
from zccr_stream.audit import (
    AHEAD,
    NOT_PUBLISHED,
    ORPHAN,
    UNEQUAL,
    AssetState,
    Audit,
    Published,
    Truth,
    UserState,
    compare,
)
from zccr_stream.cli import app
from zccr_stream.events import AssetUploaded, Embeddings, Record, dump_embeddings, dump_recommendations
from zccr_stream.events import Recommendations as Lists

D = b"0123456789abcdef"


def published(assets: dict[str, AssetState], users: dict[str, UserState] | None = None) -> Published:
    result = Published()
    result.assets.update(assets)
    result.users.update(users or {})
    return result


def truth(
    assets: dict[str, AssetState],
    users: dict[str, UserState] | None = None,
    unannounced_assets: frozenset[str] = frozenset(),
    unannounced_users: frozenset[str] = frozenset(),
) -> Truth:
    return Truth(assets.items(), (users or {}).items(), unannounced_assets, unannounced_users)


def test_what_agrees_is_no_difference() -> None:
    assets = {"a": AssetState(3, D)}
    users = {"ann": UserState(2, True), "gone": UserState(4, False), "gone-and-compacted": UserState(1, False)}

    audit = compare(
        truth(assets, users),
        published({**assets, "removed": AssetState(9, None)}, {n: users[n] for n in ("ann", "gone")}),
    )

    assert not audit
    assert (audit.live_assets, audit.users) == (1, 3)


@pytest.mark.parametrize(
    ("said", "how"),
    [
        (None, NOT_PUBLISHED),
        (AssetState(2, D), NOT_PUBLISHED),
        (AssetState(2, None), NOT_PUBLISHED),
        (AssetState(3, None), NOT_PUBLISHED),
        (AssetState(3, D[::-1]), UNEQUAL),
        (AssetState(4, D), AHEAD),
        (AssetState(4, None), AHEAD),
    ],
)
def test_an_asset_that_differs(said: AssetState | None, how: str) -> None:
    state = {"a": AssetState(3, D)}
    topic = published({} if said is None else {"a": said})

    assert compare(truth(state), topic).asset_differences == {"a": (0 if said is None else said.revision, how)}
    assert not compare(truth(state, unannounced_assets=frozenset("a")), topic)


def test_an_orphan_is_live_in_the_topic_alone() -> None:
    topic = published({"a": AssetState(3, D)})

    assert compare(truth({}), topic).asset_differences == {"a": (3, ORPHAN)}
    assert not compare(truth({}, unannounced_assets=frozenset("a")), topic)


@pytest.mark.parametrize(
    ("state", "said", "difference"),
    [
        (UserState(3, True), None, (0, NOT_PUBLISHED)),
        (UserState(3, True), UserState(2, True), (2, NOT_PUBLISHED)),
        (UserState(3, True), UserState(3, False), (3, NOT_PUBLISHED)),
        (UserState(3, False), UserState(2, True), (2, NOT_PUBLISHED)),
        (UserState(3, True), UserState(4, True), (4, AHEAD)),
        (None, UserState(4, True), (4, AHEAD)),
    ],
)
def test_a_user_that_differs(state: UserState | None, said: UserState | None, difference: tuple[int, str]) -> None:
    users = {} if state is None else {"ann": state}
    topic = published({}, {} if said is None else {"ann": said})

    assert compare(truth({}, users), topic).user_differences == {"ann": difference}
    assert not compare(truth({}, users, unannounced_users=frozenset({"ann"})), topic)


def test_only_what_differs_in_the_same_way_again_still_stands() -> None:
    before = Audit(asset_differences={"stays": (1, ORPHAN), "moves": (1, NOT_PUBLISHED), "goes": (1, ORPHAN)})
    after = Audit(asset_differences={"stays": (1, ORPHAN), "moves": (2, NOT_PUBLISHED), "comes": (1, ORPHAN)})

    assert after.standing_since(before).asset_differences == {"stays": (1, ORPHAN)}


def test_the_greatest_version_of_a_user_counts() -> None:
    result = Published()
    for version in (2, 1):
        message = dump_recommendations(Lists("ann", version, 0, "mini", [], []))
        result.take_recommendations([Record("r", 0, 0, 0, message.key, message.value, message.headers)])
    result.take_recommendations([Record("r", 0, 0, 0, b"not ours", b"{}", ())])

    assert result.users == {"ann": UserState(2, False)}


def verify(*options: str) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(app, ["verify", "--json", "--settle-s", "0.1", *options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, json.loads(result.stdout)


def test_a_restored_database_is_found_and_mended(installed: Installation) -> None:
    """Rows lost, versions turned back, and a topic that knows more: each is named, and gone after a repair."""
    installed.wait_ready(installed.start("consumers.ingest"), installed.start("consumers.recommend"))
    installed.publish(
        [
            AssetUploaded(f"e{n}", 1_780_000_000_000_000_000 + n, 0, f"a{n}", user, "text", text=f"a dog number {n}")
            for n, user in enumerate(["ann", "ben", "cid", "ann", "ben"])
        ]
    )
    installed.wait_settled()
    assert verify() == (
        0,
        {"live_assets": 5, "users": 3, "being_announced": 0, "repaired": False, "differences": []},
    )

    engine = sa.create_engine(installed.settings.database_url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM assets WHERE asset_id = 'a0'"))
        connection.execute(sa.text("DELETE FROM users WHERE user_id = 'cid'"))
        connection.execute(sa.text("DELETE FROM assets WHERE user_id = 'cid'"))
        connection.execute(sa.text("UPDATE assets SET revision = 5 WHERE asset_id = 'a1'"))
    vector = np.zeros((1, 1), np.float16)
    removal = Embeddings("mini", ["a3"], ["ann"], ["text"], np.array([7]), np.array([0]), vector, np.array([False]))
    installed.publisher.publish([*dump_embeddings(removal), dump_recommendations(Lists("ben", 50, 0, "mini", [], []))])

    code, found = verify()
    assert code == 1
    assert {(of["id"], of["difference"]) for of in found["differences"]} == {
        ("a0", ORPHAN),
        ("a1", NOT_PUBLISHED),
        ("a2", ORPHAN),
        ("a3", AHEAD),
        ("ben", AHEAD),
        ("cid", AHEAD),
    }
    assert verify("--repair")[0] == 0
    installed.wait_settled()

    assert verify()[0] == 0
    assert installed.announced() == installed.live()
    assert installed.live().keys() == {"a1", "a3", "a4"}
    newest = installed.newest()
    assert newest.versions["ben"] == 51
    assert newest.by_user["cid"] is None
