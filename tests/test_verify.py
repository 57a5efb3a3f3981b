"""What was published, held against the truth: the comparison by examples, and the command on a whole installation."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from tests.installation import Installation
from tests.waiting import wait_until
from zccr_stream.audit import (
    AHEAD,
    NOT_PUBLISHED,
    ON_ITS_WAY,
    ORPHAN,
    TO_BE_REFRESHED,
    UNEQUAL,
    AssetState,
    Audit,
    Difference,
    Published,
    Truth,
    UserState,
    compare,
)
from zccr_stream.cli import app
from zccr_stream.events import AssetUploaded, Embeddings, Record, dump_embeddings, dump_recommendations
from zccr_stream.events import Recommendations as Lists
from zccr_stream.parts import UnavailableError

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


def without_owners(audit: Audit) -> dict[str, Difference]:
    return {asset_id: of._replace(user_ids=frozenset()) for asset_id, of in audit.assets_that_differ.items()}


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

    difference = Difference(0 if said is None else said.revision, how)
    assert without_owners(compare(truth(state), topic)) == {"a": difference}
    waits = compare(truth(state, unannounced_assets=frozenset("a")), topic)
    assert without_owners(waits) == {"a": difference._replace(how=ON_ITS_WAY)}


def test_an_orphan_is_live_in_the_topic_alone() -> None:
    topic = published({"a": AssetState(3, D)})

    assert without_owners(compare(truth({}), topic)) == {"a": Difference(3, ORPHAN)}
    waits = compare(truth({}, unannounced_assets=frozenset("a")), topic)
    assert without_owners(waits) == {"a": Difference(3, ON_ITS_WAY)}


def test_an_asset_that_differs_is_in_its_owners_profiles() -> None:
    moved = compare(
        truth({"a": AssetState(4, D, "ann")}), published({"a": AssetState(3, D, "ben"), "b": AssetState(1, D, "cid")})
    )

    assert {asset_id: of.user_ids for asset_id, of in moved.assets_that_differ.items()} == {
        "a": {"ann", "ben"},
        "b": {"cid"},
    }


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

    assert compare(truth({}, users), topic).users_that_differ == {"ann": Difference(*difference)}
    waits = compare(truth({}, users, unannounced_users=frozenset({"ann"})), topic)
    assert waits.users_that_differ == {"ann": Difference(difference[0], ON_ITS_WAY)}


def test_only_what_differs_in_the_same_way_again_still_stands() -> None:
    orphan, lost = Difference(1, ORPHAN), Difference(1, NOT_PUBLISHED)
    before = Audit(assets_that_differ={"stays": orphan, "moves": lost, "goes": orphan})
    after = Audit(assets_that_differ={"stays": orphan, "moves": lost._replace(published=2), "comes": orphan})

    assert after.standing_since(before).assets_that_differ == {"stays": orphan}


def test_the_greatest_revision_of_an_asset_counts() -> None:
    """Whatever partition is read first: one that was added after the topic was made holds the newer states."""
    result = Published()
    for revision, live in ((2, False), (1, True)):
        vector = np.ones((1, 1), np.float16)
        state = np.array([revision]), np.array([0]), vector, np.array([live])
        result.apply(Embeddings("mini", ["a"], ["ann"], ["text"], *state))

    assert result.assets == {"a": AssetState(2, None)}


def test_the_greatest_version_of_a_user_counts() -> None:
    result = Published()
    for version in (2, 1):
        message = dump_recommendations(Lists("ann", version, 0, "mini", [], []))
        result.take_recommendations([Record("r", 0, 0, 0, message.key, message.value, message.headers)])
    for header in (b"ann/9223372036854775806", b"gh\0st/3", b"nobody", None):
        result.take_recommendations([Record("r", 0, 0, 0, b"not ours", b"{}", (("ce_id", header),))])
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
        {"live_assets": 5, "users": 3, "repaired": False, "differences": []},
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
    assert newest.versions["ben"] >= 51
    assert newest.by_user["cid"] is None
    of_ann = newest.by_user["ann"]
    assert of_ann is not None
    assert {area["representative"] for area in of_ann["areas"]} == {"a3"}


def test_what_waits_for_a_consumer_is_never_called_agreement(installed: Installation) -> None:
    ingest, recommend = installed.start("consumers.ingest"), installed.start("consumers.recommend")
    installed.wait_ready(ingest, recommend)
    upload = AssetUploaded("e1", 1_780_000_000_000_000_000, 0, "a1", "ann", "text", text="a dog")
    installed.publish([upload])
    installed.wait_settled()
    recommend.kill()
    installed.publish([dataclasses.replace(upload, event_id="e2", asset_id="a2", text="a cat")])
    wait_until(lambda: len(installed.live()) == 2 and len(installed.announced()) == 2, 60, "it is ingested")
    waits_for_refresh = verify()
    ingest.kill()
    engine = sa.create_engine(installed.settings.database_url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE assets SET revision = 5 WHERE asset_id = 'a1'"))
        connection.execute(sa.text("INSERT INTO unannounced_assets (asset_id) VALUES ('a1')"))
    waits_for_ingest = verify()

    refresh = {"what": "user", "id": "ann", "published": 1, "difference": TO_BE_REFRESHED}
    announce = {"what": "asset", "id": "a1", "published": 1, "difference": ON_ITS_WAY}
    assert (waits_for_refresh[0], waits_for_refresh[1]["differences"]) == (1, [refresh])
    assert (waits_for_ingest[0], waits_for_ingest[1]["differences"]) == (1, [announce, refresh])


def test_what_verify_cannot_compare_is_said(installed: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    installed.wait_ready(installed.start("consumers.ingest"))
    installed.publish([AssetUploaded("e1", 1_780_000_000_000_000_000, 0, "a1", "ann", "text", text="a dog")])
    wait_until(lambda: len(installed.live()) == 1, 60, "it is ingested")

    for name, value, said in (
        ("ZCCR_ENCODER", "ViT-B-32/laion2b_s34b_b79k", "set ZCCR_ENCODER"),
        ("ZCCR_TOPIC_PREFIX", "none-", "zccr-stream topics"),
    ):
        monkeypatch.setenv(name, value)
        failed = CliRunner().invoke(app, ["verify", "--settle-s", "0.1"])
        assert isinstance(failed.exception, UnavailableError)
        assert said in str(failed.exception)
