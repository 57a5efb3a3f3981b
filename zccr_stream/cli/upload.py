"""Files become `asset-uploaded` events: photos as `data:` URIs, .txt and .md as inline texts."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.console import Console
from rich.progress import track

from zccr_stream import assemble
from zccr_stream.events import IMAGE, TEXT, AssetUploaded, Message, dump_input
from zccr_stream.settings import Settings

TEXT_SUFFIXES = (".txt", ".md")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
SOURCE = "zccr-stream/upload"

_BATCH = 32
_BYTES_AS_IT_IS = 500_000  # base64 makes it a third longer, and Kafka takes 1 MB by default
_SIDE_MAX_PX = 1024


def upload(
    files: Annotated[list[Path], typer.Argument(help="Photos, .txt and .md files, or folders of them.", exists=True)],
    user: Annotated[str, typer.Option("--user", help="Whose uploads these are.")],
) -> None:
    """Publish files as a user's uploads. The same file again replaces what it was before."""
    console = Console()
    paths = list(_files(files))
    if not paths:
        raise typer.BadParameter(f"no photos or texts in {', '.join(map(str, files))}")
    publisher = assemble.publisher(Settings())
    published, skipped = 0, []
    for batch in track(list(_batches(paths)), description="Uploading", console=console):
        messages = []
        for path in batch:
            try:
                messages.append(message(user, path, time.time_ns()))
            except (UnidentifiedImageError, UnicodeDecodeError, OSError) as error:
                skipped.append(f"{path}: {error}")
        publisher.publish(messages)
        published += len(messages)
    console.print(
        f"{published} uploads of {user} published; `zccr-stream watch --user {user}` shows what comes of them"
    )
    for line in skipped:
        console.print(f"[yellow]skipped[/yellow] {line}")
    if skipped:
        raise typer.Exit(1)


def message(user: str, path: Path, occurred_at_ns: int) -> Message:
    """A file as an `asset-uploaded` message; its asset is named after user and file.

    Raises:
        UnicodeDecodeError: a text that is not UTF-8.
        UnidentifiedImageError: not an image.
        OSError: cannot be read.
    """
    is_text = path.suffix.lower() in TEXT_SUFFIXES
    asset_id = f"{user}/{path.name}"
    upload = AssetUploaded(
        event_id=f"{asset_id}@{occurred_at_ns}",
        occurred_at_ns=occurred_at_ns,
        received_at_ms=occurred_at_ns // 1_000_000,
        asset_id=asset_id,
        user_id=user,
        modality=TEXT if is_text else IMAGE,
        text=path.read_text("utf-8") if is_text else None,
        uri=None if is_text else data_uri(path),
    )
    return dump_input(upload, SOURCE)


def data_uri(path: Path) -> str:
    """An image file as a `data:` URI; large ones are scaled down, since encoders see less than that anyway."""
    content = path.read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        mime_type = image.get_format_mimetype() or "image/jpeg"
        if len(content) > _BYTES_AS_IT_IS:
            content, mime_type = _scaled_down(image), "image/jpeg"
    return f"data:{mime_type};base64,{base64.b64encode(content).decode()}"


def _scaled_down(image: Image.Image) -> bytes:
    upright = ImageOps.exif_transpose(image).convert("RGB")
    upright.thumbnail((_SIDE_MAX_PX, _SIDE_MAX_PX))
    encoded = io.BytesIO()
    upright.save(encoded, "JPEG", quality=90)
    return encoded.getvalue()


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(
                file
                for file in path.rglob("*")
                if file.is_file() and file.suffix.lower() in (*TEXT_SUFFIXES, *IMAGE_SUFFIXES)
            )
        else:
            yield path


def _batches(paths: Sequence[Path]) -> Iterator[Sequence[Path]]:
    for start in range(0, len(paths), _BATCH):
        yield paths[start : start + _BATCH]
