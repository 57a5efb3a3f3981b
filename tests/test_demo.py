"""The demo, whole and in parts."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from zccr_stream.cli.demo.cast import NAMES, cast
from zccr_stream.cli.demo.media import Item, Media, NoMediaError, find_media
from zccr_stream.events import IMAGE, TEXT

ROOT = Path(__file__).parent.parent


def media(kinds: int = 6, items: int = 20) -> Media:
    return Media(
        "test",
        {f"k{k}": [Item(f"k{k}-{i}", Path(f"{k}-{i}.png"), f"{k} {i}") for i in range(items)] for k in range(kinds)},
    )


def folder_of_photos(folder: Path, kinds: int, photos: int) -> Path:
    for kind in range(kinds):
        (folder / f"kind-{kind}").mkdir(parents=True)
        for number in range(photos):
            path = folder / f"kind-{kind}" / f"photo-{number}.png"
            Image.new("RGB", (64, 64), (kind * 40, number * 10, 90)).save(path)
            path.with_suffix(".txt").write_text(f"Photo {number} of kind {kind}.\nde=etwas anderes\n")
    return folder


def test_a_dozen_users_have_two_or_three_interests_in_photos_texts_or_both() -> None:
    users = cast(media())

    assert [user.user_id for user in users] == list(NAMES)
    assert {len(user.kinds) for user in users} == {2, 3}
    assert Counter(tuple(user.modalities) for user in users) == {(IMAGE,): 4, (TEXT,): 4, (IMAGE, TEXT): 4}
    assert all({upload.modality for upload in user.uploads} == set(user.modalities) for user in users)
    assert all({upload.kind for upload in user.uploads} == set(user.kinds) for user in users)


def test_nobody_uploads_what_another_does_and_everybody_shares_kinds() -> None:
    users = cast(media())
    items = [upload.item.name for user in users for upload in user.uploads]

    assert len(items) == len(set(items))
    assert min(Counter(kind for user in users for kind in user.kinds).values()) >= 2


def test_a_cast_is_the_same_each_time() -> None:
    assert cast(media()) == cast(media())


def test_any_folder_of_captioned_photos_will_do(tmp_path: Path) -> None:
    folder = folder_of_photos(tmp_path, kinds=3, photos=8)
    (folder / "kind-0" / "no-caption.png").write_bytes((folder / "kind-0" / "photo-0.png").read_bytes())
    (folder / "kind-1" / "no-photo.png").write_text("this is no photo")
    (folder / "kind-1" / "no-photo.txt").write_text("A caption.")

    found = find_media(folder, tmp_path / "cache", say=print)

    assert {kind: len(items) for kind, items in found.kinds.items()} == {"kind-0": 8, "kind-1": 8, "kind-2": 8}
    assert found.kinds["kind-0"][0].sentence == "Photo 0 of kind 0."


def test_too_few_photos_say_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(NoMediaError, match="2 photos with a caption"):
        find_media(folder_of_photos(tmp_path, kinds=1, photos=2), tmp_path / "cache", say=print)


@pytest.mark.timeout(400)
def test_the_demo_shows_what_a_dozen_users_are_recommended(
    bootstrap_servers: str, database: str, topic_prefix: str, tmp_path: Path
) -> None:
    """As a newcomer runs it: it ends by itself, hits cross modalities, and the page needs nothing but itself."""
    page = tmp_path / "demo.html"
    done = subprocess.run(
        [sys.executable, "-m", "zccr_stream", "demo", "--page", str(page)],
        cwd=ROOT,
        env={
            **os.environ,
            "ZCCR_BOOTSTRAP_SERVERS": bootstrap_servers,
            "ZCCR_DATABASE_URL": database,
            "ZCCR_TOPIC_PREFIX": topic_prefix,
        },
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert all(name in done.stdout for name in NAMES)
    crossmodal = re.search(r"recommended across modalities\s+(\d+)%", done.stdout)
    assert crossmodal is not None
    assert int(crossmodal[1]) > 0
    html = page.read_text()
    assert set(re.findall(r'<img src="([^",;]*)', html)) == {"data:image/jpeg"}
    assert not re.search(r'(src|href)="(?!data:|#)', html)
    assert not re.search("<script", html)
    assert subprocess.run(["pgrep", "-f", topic_prefix], capture_output=True, check=False).stdout == b""
    look_at(page, tmp_path)


def look_at(page: Path, folder: Path) -> None:
    """Open it in a real browser where there is one: every picture must load."""
    browser = shutil.which("chromium")
    if browser is None:
        return
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    shot = folder / "page.png"
    subprocess.run(
        [
            browser,
            *options,
            f"--user-data-dir={folder}/profile",
            "--window-size=1200,2000",
            f"--screenshot={shot}",
            page,
        ],
        capture_output=True,
        timeout=120,
        check=True,
    )
    with Image.open(shot) as seen:
        colours = seen.convert("RGB").getcolors(maxcolors=1 << 24)
    assert colours is not None
    assert len(colours) > 1000, "no photos to be seen"
