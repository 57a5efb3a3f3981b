"""Content from `data:` URIs (RFC 2397): a URI comes in, bounded bytes and their charset go out. Pure."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import unquote_to_bytes

from zccr_stream.content.fetched import Fetched, declared_charset
from zccr_stream.events import BadInputError

_HEADER_CHARS_MAX = 200
_EXPECTED = "expected data:image/png;base64,… or data:text/plain;charset=utf-8,…"


def read_data_uri(uri: str, kind: str, bytes_max: int) -> Fetched:
    """Decode a `data:` URI whose media type is `kind`/… .

    Raises:
        BadInputError: malformed, of another media type, or too large.
    """
    header, comma, body = uri[len("data:") :].partition(",")
    if not comma or len(header) > _HEADER_CHARS_MAX:
        raise BadInputError("fetch", f"the data: URI is malformed; {_EXPECTED}")
    media_type, *parameters = [part.strip() for part in header.split(";")]
    media_type = media_type.lower() or "text/plain"
    if not media_type.startswith(f"{kind}/"):
        raise BadInputError("fetch", f"the data: URI is of media type {media_type!r}; expected {kind}/…")
    # An escape takes three characters a byte, base64 four for three bytes.
    if len(body) > 3 * bytes_max + 3:
        raise BadInputError(
            "fetch", f"the data: URI is of {len(body):,} characters; at most {bytes_max:,} bytes are allowed"
        )
    data = unquote_to_bytes(body)
    if parameters and parameters[-1].lower() == "base64":
        data = _from_base64(data)
    if len(data) > bytes_max:
        raise BadInputError("fetch", f"the data: URI holds {len(data):,} bytes; at most {bytes_max:,} are allowed")
    return Fetched(data, declared_charset(header))


def _from_base64(data: bytes) -> bytes:
    compact = b"".join(data.split()).rstrip(b"=")  # line breaks and missing padding are common, and harmless
    try:
        return base64.b64decode(compact + b"=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInputError("fetch", f"the data: URI is not valid base64: {error}") from error
