"""The vocabulary of fetching: what every source gives. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_CHARSET = re.compile(r";\s*charset\s*=\s*[\"']?([\w.:-]{1,40})", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Fetched:
    """Bytes as they came, and the charset that their sender declared, if any."""

    data: bytes
    charset: str | None = None


def declared_charset(content_type: str) -> str | None:
    """The charset of a media type with parameters, as in `text/plain; charset=utf-8`.

    Not by the standard library's parser: it raises on some of what strangers send.
    """
    match = _CHARSET.search(content_type)
    return None if match is None else match[1].lower()
