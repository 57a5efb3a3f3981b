"""Files become `asset-uploaded` events: photos as `data:` URIs, .txt and .md as inline texts.

Every file is read here as the stream would read it, so what would become a dead letter is said at once instead.
"""

from __future__ import annotations

import base64
import io
import mimetypes
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from PIL.Image import Image
from rich.console import Console
from rich.markup import escape
from rich.progress import track

from zccr_stream import assemble
from zccr_stream.events import IMAGE, TEXT, AssetUploaded, BadInputError, Message, TryLaterError, dump_input
from zccr_stream.parts import Contents
from zccr_stream.settings import Settings

TEXT_SUFFIXES = (".txt", ".md")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
SOURCE = "zccr-stream/upload"

_BATCH = 8
_URI_CHARS_MAX = 700_000  # a broker takes records of 1 MB unless it is told otherwise
_QUALITY = 88


@dataclass(frozen=True, slots=True)
class File:
    """A file to upload, and the name of its asset below the user's."""

    path: Path
    name: str


def upload(
    files: Annotated[list[Path], typer.Argument(help="Photos, .txt and .md files, or folders of them.", exists=True)],
    user: Annotated[str, typer.Option("--user", help="Whose uploads these are.")],
) -> None:
    """Publish files as a user's uploads. The same file again replaces what it was before."""
    console = Console()
    found = list(_files(files))
    if not found:
        raise typer.BadParameter(f"no photos or texts in {', '.join(map(str, files))}")
    if twice := [name for name, count in Counter(file.name for file in found).items() if count > 1]:
        raise typer.BadParameter(
            f"several files would be the same asset: {', '.join(twice)}; give their folder instead"
        )
    settings = Settings()
    contents, publisher = assemble.contents(settings), assemble.publisher(settings)
    published, skipped = 0, list[str]()
    batches = [found[start : start + _BATCH] for start in range(0, len(found), _BATCH)]
    for batch in track(batches, description="Uploading", console=console):
        messages = []
        for file, message in zip(batch, messages_of(user, batch, contents, settings), strict=True):
            if isinstance(message, Message):
                messages.append(message)
            else:
                skipped.append(f"{file.path}: {message}")
        publisher.publish(messages)
        published += len(messages)
    contents.close()
    publisher.close(5)
    shown = escape(user)
    console.print(
        f"{published} uploads of {shown} published; `zccr-stream watch --user {shown}` shows what comes of them"
    )
    for line in skipped:
        console.print(f"[yellow]skipped[/yellow] {escape(line)}")
    if skipped:
        raise typer.Exit(1)


def messages_of(
    user: str, files: Sequence[File], contents: Contents, settings: Settings
) -> list[Message | BadInputError | TryLaterError | OSError]:
    """Files as `asset-uploaded` messages, or why one cannot be uploaded."""
    now_ns = time.time_ns()
    events: list[AssetUploaded | BadInputError | OSError] = []
    for file in files:
        try:
            events.append(_event(user, file, now_ns, settings))
        except (BadInputError, OSError) as error:
            events.append(error)
    fitted = iter(fit([event for event in events if isinstance(event, AssetUploaded)], contents))
    return [_message(next(fitted)) if isinstance(event, AssetUploaded) else event for event in events]


def fit(uploads: Sequence[AssetUploaded], contents: Contents) -> list[AssetUploaded | BadInputError | TryLaterError]:
    """Uploads as they may be published: a photo that is large for a message is scaled down, as encoders do anyway."""
    fitted: list[AssetUploaded | BadInputError | TryLaterError] = []
    for event, content in zip(uploads, contents.load(uploads), strict=True):
        if isinstance(content, BadInputError | TryLaterError):
            fitted.append(content)
        elif isinstance(content, Image) and len(event.uri or "") > _URI_CHARS_MAX:
            fitted.append(replace(event, uri=_scaled_down(content)))
        else:
            fitted.append(event)
    return fitted


def _scaled_down(image: Image) -> str:
    """A JPEG of at most so many characters; 512 pixels a side fit, whatever is on them."""
    for side_px in (1024, 768, 512):
        image.thumbnail((side_px, side_px))
        encoded = io.BytesIO()
        image.save(encoded, "JPEG", quality=_QUALITY)
        if len(uri := data_uri(encoded.getvalue(), "image/jpeg")) <= _URI_CHARS_MAX:
            break
    return uri


def data_uri(content: bytes, media_type: str) -> str:
    """Content as a `data:` URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def photo_uri(path: Path) -> str:
    """An image file as a `data:` URI, as it is."""
    return data_uri(path.read_bytes(), mimetypes.guess_type(path.name)[0] or "image/jpeg")


def _event(user: str, file: File, now_ns: int, settings: Settings) -> AssetUploaded:
    is_text = file.path.suffix.lower() in TEXT_SUFFIXES
    bytes_max = settings.fetch_text_bytes_max if is_text else settings.fetch_image_bytes_max
    if (size := file.path.stat().st_size) > bytes_max:
        raise BadInputError("fetch", f"{size:,} bytes; at most {bytes_max:,} are allowed")
    asset_id = f"{_escaped(user)}/{file.name}"
    return AssetUploaded(
        event_id=f"{file.name[-200:]}@{now_ns}",
        occurred_at_ns=now_ns,
        received_at_ms=now_ns // 1_000_000,
        asset_id=asset_id,
        user_id=user,
        modality=TEXT if is_text else IMAGE,
        text=file.path.read_text("utf-8", errors="replace") if is_text else None,
        uri=None if is_text else photo_uri(file.path),
    )


def _escaped(user: str) -> str:
    """A user as the first part of a path: `a/b` and its `c` are not `a` and its `b/c`."""
    return user.replace("%", "%25").replace("/", "%2F")


def _message(event: AssetUploaded | BadInputError | TryLaterError) -> Message | BadInputError | TryLaterError:
    if not isinstance(event, AssetUploaded):
        return event
    try:
        return dump_input(event, SOURCE)
    except BadInputError as error:
        return error


def _files(paths: Sequence[Path]) -> Iterator[File]:
    """Files as they are, and what is in folders, named by their path within."""
    for path in paths:
        if path.is_dir():
            inside = (file for file in sorted(path.rglob("*")) if file.is_file())
            wanted = (file for file in inside if file.suffix.lower() in (*TEXT_SUFFIXES, *IMAGE_SUFFIXES))
            yield from (File(file, file.relative_to(path).as_posix()) for file in wanted)
        else:
            yield File(path, path.name)
