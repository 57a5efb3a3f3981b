"""Results as Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str | float]]) -> str:
    """A table; numbers are shares with three decimals, or counts where they are whole."""
    lines = [heads, ["---"] * len(heads), *([_shown(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def share(value: float, decimals: int = 3) -> str:
    """A number, of which those below 1 have no 0 before the point."""
    text = f"{value:.{decimals}f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def _shown(value: str | float) -> str:
    match value:
        case str():
            return value
        case int():
            return f"{value:,}"
        case _:
            return share(value) if abs(value) < 1 else f"{value:.2f}"
