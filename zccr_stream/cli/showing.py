"""Text of others on the operator's screen."""

from __future__ import annotations

from rich.markup import escape


def shown(text: str) -> str:
    """The text without anything that a terminal or rich would act on."""
    return escape(plain(text))


def plain(text: str) -> str:
    """The text without anything that a terminal would act on."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
