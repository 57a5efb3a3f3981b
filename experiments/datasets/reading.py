"""Files of JSON and of lines, read so that an error names the file, the line and what is expected there."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.datasets.items import DataError


def read_text(path: Path) -> str:
    """Read a file as UTF-8, with a byte order mark or without."""
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8: {error}") from error


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The number and the text of every line that is not blank; texts may hold any other line break."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            yield number, line


def json_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The number and the object of every line that is not blank."""
    for number, line in lines(path):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: {error}; expected a JSON object on every line") from error
        if not isinstance(value, dict):
            raise DataError(f"{path}, line {number}: {line[:60]!r}; expected a JSON object on every line")
        yield number, value


def json_object(path: Path) -> Mapping[str, Any]:
    """The one object of a file."""
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: {error}; expected one JSON object") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} holds a JSON {type(value).__name__}; expected one object")
    return value


def objects(value: Any, where: str) -> list[Mapping[str, Any]]:
    """Take a value for a list of objects."""
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise DataError(f"{where}: {_found(value)}; expected a list of objects")
    return value


def strings(value: Any, where: str) -> list[str]:
    """Take a value for a list of strings."""
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise DataError(f"{where}: {_found(value)}; expected a list of strings")
    for one in value:
        _check_encodable(one, where)
    return value


def string(record: Mapping[str, Any], key: str, where: str) -> str:
    """Read a record's string."""
    value = record.get(key)
    if not isinstance(value, str):
        found = f'"{key}" is {str(value)[:60]!r}' if key in record else f'no "{key}"'
        raise DataError(f"{where}: {found}; expected a string")
    _check_encodable(value, where)
    return value


def identifier(record: Mapping[str, Any], key: str, where: str) -> int | str:
    """Read what a record is told by."""
    value = record.get(key)
    if not isinstance(value, int | str):
        raise DataError(f'{where}: "{key}" is {_found(value)}; expected a number or a string')
    return value


def is_file(path: Path) -> bool:
    """Whether there is such a file; of a name that no file can have, there is not."""
    try:
        return path.is_file()
    except OSError:
        return False


def captions(value: Any, where: str) -> tuple[str, ...]:
    """Take a value for a picture's captions, the blank ones left out."""
    said = tuple(text.strip() for text in value if isinstance(text, str)) if isinstance(value, list) else ()
    if not any(said):
        found = "no captions" if value is None or isinstance(value, list) else _found(value)
        raise DataError(f"{where}: {found}; expected a list of sentences")
    for text in said:
        _check_encodable(text, where)
    return tuple(filter(None, said))


def _found(value: Any) -> str:
    return "missing" if value is None else repr(str(value)[:60])


def _check_encodable(text: str, where: str) -> None:
    """JSON may escape half of a character, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: {text[:60]!r} has half of a surrogate pair; expected a string") from error


def label(record: Mapping[str, Any], where: str) -> str | None:
    """Read a record's kind, where it has one; numbers are kinds too, NaN is none (a table's missing value)."""
    value = record.get("label")
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, list | dict):
        raise DataError(f'{where}: "label" is {str(value)[:60]!r}; expected a string, or none')
    return None if value is None else str(value) or None
