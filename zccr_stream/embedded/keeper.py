"""Keep one server: run it, end it when its owner ends, leave nothing of it behind.

Comes in: a command, the process that owns it, and how to stop it, as arguments of a process of its own
(`python keeper.py …`, standard library only: it must start at once and outlive whatever ends its owner).
Goes out: the server's process id on standard output, later the server's exit status.
It does not know what the server is.
"""

import argparse
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.05


def main() -> int:
    """Run the command of the arguments until it ends, its owner ends or a signal says so (TERM: stop; USR1: kill)."""
    args = _arguments()
    wanted: list[int] = []
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, _frame: wanted.append(number))
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    server = subprocess.Popen(
        args.command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        # Bound to the thread that starts the server, which is why it is not the owner, with its many, that does.
        preexec_fn=lambda: _prctl(_PR_SET_PDEATHSIG, args.death_signal),
    )
    print(server.pid, flush=True)
    os.close(sys.stdout.fileno())
    while server.poll() is None and not wanted and os.getppid() == args.owner:
        time.sleep(_POLL_S)
    if signal.SIGUSR1 not in wanted:
        _stop(server, args.stop_signal, args.grace_s, wanted)
    _kill_all(server)
    if os.getppid() != args.owner:
        _remove(args.remove)
    return server.returncode if server.returncode >= 0 else 128 - server.returncode


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--owner", type=int, required=True)
    parser.add_argument("--stop-signal", type=int, required=True)
    parser.add_argument("--death-signal", type=int, required=True)
    parser.add_argument("--grace-s", type=float, required=True)
    parser.add_argument("--remove", type=Path, action="append", default=[])
    parser.add_argument("command", nargs="+")
    return parser.parse_args()


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, ctypes.c_ulong(value), 0, 0, 0)


def _stop(server: subprocess.Popen[bytes], stop_signal: int, grace_s: float, wanted: list[int]) -> None:
    if server.poll() is None:
        server.send_signal(stop_signal)
    deadline = time.monotonic() + grace_s
    while server.poll() is None and time.monotonic() < deadline and signal.SIGUSR1 not in wanted:
        time.sleep(_POLL_S)


def _kill_all(server: subprocess.Popen[bytes]) -> None:
    """Kill the server and every descendant: as their subreaper this process inherits the orphans."""
    if server.poll() is None:
        server.kill()
        server.wait()
    while True:
        for pid in _children():
            os.kill(pid, signal.SIGKILL)  # ours and not reaped yet, so the id cannot name another process
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    try:
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    except OSError:
        return []


def _remove(paths: list[Path]) -> None:
    """Remove a dead owner's temporary folders; a parent folder goes with the last of them."""
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)
        try:
            path.parent.rmdir()
        except OSError:
            continue


if __name__ == "__main__":
    sys.exit(main())
