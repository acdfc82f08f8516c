"""When a run has seen enough failures."""

FAILURE_STREAK = 20
EQUAL_REFUSALS = 50


class Breaker:
    """Says when going on would only burn money: reasons stop the run, resumable."""

    def __init__(self) -> None:
        self._streak = 0
        self._first: list[str] = []

    @property
    def at_start(self) -> bool:
        """Whether the first requests are not all finished yet."""
        return len(self._first) < EQUAL_REFUSALS

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
            self._first.append(problem or "")
            if not self.at_start and problem and set(self._first) == {problem}:
                return f"each of the first {EQUAL_REFUSALS} requests came to nothing for one reason, {problem}"
        return None
