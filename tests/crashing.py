"""Consumers that are killed with SIGKILL the first time they pass a point: the real ones, each in a process of its own.

A point is `package.module:Class.method@before` or `@after`. `Crashing` keeps a process that has imported a consumer and
forks it for each point, so that a kill costs no imports. It has started no threads, so forking it is safe.
"""

import functools
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Crashing:
    """Forks a consumer per point and tells how it ended."""

    def __init__(self, module: str, *also_imported: str) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.crashing", module, *also_imported],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        self._server.communicate()

    def run(self, point: str, environment: Mapping[str, str], log: Path) -> int:
        """Run it until it dies at the point; its exit code, -9 where it did."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps([point, dict(environment), str(log)]) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())


def serve(module: str) -> None:
    for line in sys.stdin:
        point, environment, log = json.loads(line)
        child = os.fork()
        if child == 0:
            output = os.open(log, os.O_WRONLY | os.O_CREAT)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.environ.update(environment)
            run_until(module, point)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def run_until(module: str, point: str) -> None:
    path, when = point.split("@")
    package, names = path.split(":")
    *classes, name = names.split(".")
    owner: Any = functools.reduce(getattr, classes, importlib.import_module(package))
    original = getattr(owner, name)

    @functools.wraps(original)
    def crashing(*arguments: Any, **keywords: Any) -> None:
        if when == "after":
            original(*arguments, **keywords)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, crashing)
    sys.modules.pop(module, None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    for imported in sys.argv[1:]:
        importlib.import_module(imported)
    serve(sys.argv[1])
