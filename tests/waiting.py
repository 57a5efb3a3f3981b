import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], timeout_s: float, description: str = "", poll_s: float = 0.02) -> None:
    """Poll until the condition is truthy; fail with what was waited for once the time is over."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            what = description or getattr(condition, "__name__", repr(condition))
            raise AssertionError(f"waited {timeout_s:g} s in vain for: {what}")
        time.sleep(poll_s)
