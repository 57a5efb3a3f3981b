"""Bytes or a string come in, a clean text within bounds goes out. Pure.

Knows no tokeniser: texts longer than an encoder reads are for the encoder to cut.
"""

from __future__ import annotations

import codecs
import re

from zccr_stream.content.fetched import Fetched
from zccr_stream.events import BadInputError

# Python's codecs include some that are no charsets of documents and take quadratic time (punycode, idna) or
# evaluate escapes, so a sender may declare only these.
_CHARSETS = frozenset(
    codecs.lookup(name).name
    for name in (
        *("utf-8", "utf-8-sig", "us-ascii", "utf-16", "utf-16-le", "utf-16-be"),
        *(f"iso8859-{part}" for part in (*range(1, 12), 13, 14, 15, 16)),
        *(f"cp{page}" for page in (874, 932, 949, 950, *range(1250, 1259))),
        *(
            "koi8-r",
            "koi8-u",
            "shift_jis",
            "euc-jp",
            "iso2022-jp",
            "euc-kr",
            "gb2312",
            "gbk",
            "gb18030",
            "big5",
        ),
    )
)
# Left out rather than refused: they carry no meaning, databases and tokenisers choke on some of them, and a
# caption with a stray NUL is still a caption. Lone surrogates come from JSON's \\ud800 and cannot be encoded.
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufeff]")


def decode_text(fetched: Fetched, chars_max: int) -> str:
    """Decode bytes by their declared charset, UTF-8 where none is declared.

    Raises:
        BadInputError: an unknown charset, bytes that are not of it, or what `clean_text` refuses.
    """
    charset = _charset(fetched.charset)
    try:
        text = fetched.data.decode(charset)
    except UnicodeDecodeError as error:
        raise BadInputError(
            "decode",
            f"the text is not valid {charset} at byte {error.start:,} ({error.reason}); expected UTF-8",
        ) from error
    return clean_text(text, chars_max)


def clean_text(text: str, chars_max: int) -> str:
    """Leave out control characters and outer white space.

    Raises:
        BadInputError: longer than `chars_max` characters, or nothing to read in it.
    """
    if len(text) > chars_max:
        raise BadInputError("decode", f"the text is of {len(text):,} characters; at most {chars_max:,} are allowed")
    cleaned = _CONTROL.sub("", text).strip()
    if not any(char.isprintable() and not char.isspace() for char in cleaned):
        raise BadInputError("decode", "the text is empty: it holds nothing but white space or invisible characters")
    return cleaned


def _charset(declared: str | None) -> str:
    if declared is None:
        return "utf-8"
    try:
        name = codecs.lookup(declared).name
    except (LookupError, ValueError) as error:
        raise BadInputError("decode", f"the text's charset {declared[:40]!r} is not known; expected utf-8") from error
    if name not in _CHARSETS:
        raise BadInputError("decode", f"the text's charset {declared[:40]!r} is not allowed; expected utf-8")
    return name
