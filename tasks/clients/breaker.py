"""When a run has seen enough failures."""

FAILURE_STREAK = 20
EQUAL_REFUSALS = 50


class Breaker:
    """Says when going on would only burn money: reasons stop the run, resumable."""

    def __init__(self) -> None:
        self._streak = 0
        self._noted = self._equal = 0
        self._reason = ""
        self.at_start = True
        """Whether nothing came of any request so far, for one reason; a first good one may be what others repeat."""

    def note(self, *, failed: bool, problem: str | None) -> str | None:
        """Note one finished request, in order of completion, and return why to stop, if so.

        Args:
            failed: Whether the call failed after all its attempts.
            problem: Why nothing came of the request, None for a good reply; asked for at the start only.
        """
        self._streak = self._streak + 1 if failed else 0
        if self._streak >= FAILURE_STREAK:
            return f"{self._streak} calls in a row failed after all their attempts"
        if self.at_start:
            self._noted += 1
            if problem:
                self.at_start = self._reason in ("", problem)
                self._reason = problem
                self._equal += 1
            else:
                self.at_start = self._noted == 1
            if self.at_start and self._equal == EQUAL_REFUSALS:
                self.at_start = False
                return f"each of the first {EQUAL_REFUSALS} requests came to nothing for one reason, {problem}"
        return None
