"""Runs a module until standard input closes: a child that cannot outlive its parent.

python -m flows.child moto.server -H 127.0.0.1 -p 5000
"""

import os
import runpy
import sys
import threading


def _leave_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
