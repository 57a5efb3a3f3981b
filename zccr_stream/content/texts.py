"""Bytes or a string come in, a clean text within bounds goes out. Pure.

Knows no tokeniser: texts longer than an encoder reads are for the encoder to cut.
"""

from __future__ import annotations

import re
from encodings import normalize_encoding
from encodings.aliases import aliases

from zccr_stream.content.fetched import Fetched
from zccr_stream.events import BadInputError

# Python knows more codecs, some of which are no charsets of documents and take quadratic time (punycode, idna) or
# evaluate escapes; and it remembers every name it was ever asked for.
_CODECS = frozenset(
    (
        *("ascii", "big5", "euc_jp", "euc_kr", "gb18030", "gb2312", "gbk", "iso2022_jp", "koi8_r", "koi8_u", "latin_1"),
        *("shift_jis", "utf_16", "utf_16_be", "utf_16_le", "utf_8", "utf_8_sig"),
        *(f"iso8859_{part}" for part in (*range(2, 12), 13, 14, 15, 16)),
        *(f"cp{page}" for page in (874, 932, 949, 950, *range(1250, 1259))),
    )
)
_CHARSETS = {name: name for name in _CODECS} | {name: codec for name, codec in aliases.items() if codec in _CODECS}
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
        return _CHARSETS[normalize_encoding(declared.lower())].replace("_", "-")
    except KeyError as error:
        raise BadInputError("decode", f"the text's charset {declared[:40]!r} is not read; expected utf-8") from error
