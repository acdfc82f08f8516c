"""The stop that a signal has asked this process for.

The exception of a signal's handler is lost where it is raised inside a finaliser, or in
what a library calls back and ignores: whoever waits for long looks here, too.
"""

from dataclasses import dataclass


@dataclass
class Stop:
    """What has asked for it, Ctrl-C or SIGTERM; empty: nothing has."""

    by: str = ""

    def check(self) -> None:
        """Go on where no stop was asked for.

        Raises:
            KeyboardInterrupt: One was.
        """
        if self.by:
            raise KeyboardInterrupt


stop = Stop()
