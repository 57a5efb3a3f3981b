"""`python -m tests.crashing MODULE POINT`: a consumer that is killed with SIGKILL the first time it passes a point.

A point is `package.module:Class.method@before` or `@after`. The consumer itself is the real one.
"""

import functools
import importlib
import os
import runpy
import signal
import sys
from typing import Any


def main(module: str, point: str) -> None:
    path, when = point.split("@")
    owner_path, name = path.rsplit(".", 1)
    package, _, cls = owner_path.partition(":")
    owner: Any = importlib.import_module(package)
    if cls:
        owner = getattr(owner, cls)
    original = getattr(owner, name)

    @functools.wraps(original)
    def crashing(*arguments: Any, **keywords: Any) -> None:
        if when == "after":
            original(*arguments, **keywords)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, crashing)
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
