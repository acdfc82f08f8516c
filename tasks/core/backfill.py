"""A range of days: which they are, what each may cost, and what became of them."""

from datetime import date, timedelta

from pydantic import BaseModel

from tasks.core.counting import counted
from tasks.core.errors import AGAIN, UsageError
from tasks.core.markdown import escape, table
from tasks.core.wording import money

MOST_DAYS = 366


class DayReport(BaseModel):
    """One day of a backfill.

    `state` is Prefect's name of how its run ended and `message` the run's headline or
    error. The figures are None where the run left no report that can be read;
    `cost_usd` also where the model has no price.
    """

    partition: str
    run_id: str
    state: str
    message: str
    accepted: int | None = None
    rejected: int | None = None
    paid: int | None = None
    cached: int | None = None
    cost_usd: float | None = None

    @property
    def done(self) -> bool:
        """Whether the day's run ended well."""
        return self.state == "Completed"

    @property
    def figures(self) -> list[str]:
        """What a table shows of it: accepted, rejected, calls paid, from the journal, cost; empty without a report."""
        counts = (self.accepted, self.rejected, self.paid, self.cached)
        cost = "" if self.accepted is None else money(self.cost_usd)
        return [*("" if count is None else f"{count:,}" for count in counts), cost]


class BackfillReport(BaseModel):
    """A backfill, its days in order; `accepted` and `paid` count over all of them.

    `problem` names the days that failed, and is empty where none did.
    """

    run_id: str
    days: list[DayReport]
    accepted: int
    paid: int
    problem: str = ""


def days_between(start_date: date, end_date: date, today: date) -> list[str]:
    """Return every day from `start_date` to `end_date`, both included, as YYYY-MM-DD.

    Raises:
        UsageError: The range is backwards, longer than MOST_DAYS or reaches beyond `today`.
    """
    count = (end_date - start_date).days + 1
    if count < 1:
        raise UsageError(f"--start-date {start_date} is after --end-date {end_date}. Swap them.")
    if end_date > today:
        raise UsageError(f"--end-date {end_date} is in the future: today is {today} (UTC). Give a day that has begun.")
    if count > MOST_DAYS:
        raise UsageError(
            f"{start_date} to {end_date} are {count:,} days, above {MOST_DAYS}. Check the years, or split."
        )
    return [(start_date + timedelta(days=offset)).isoformat() for offset in range(count)]


class Purse:
    """US dollars dealt out to days: what one does not spend is dealt to those after it.

    What is out at any moment and what was spent never exceed the whole. No limit: 0.
    """

    def __init__(self, whole_usd: float, days: int) -> None:
        self._limited, self._left, self._days = whole_usd > 0, whole_usd, days
        self._dealt: dict[str, float] = {}

    def deal(self, day: str) -> float:
        """Return what `day` may spend: an equal part of what is left; 0 for no limit."""
        share = self._left / self._days
        self._days -= 1
        self._left -= share
        self._dealt[day] = share
        return share

    def settle(self, day: str, cost_usd: float | None) -> None:
        """Take back what `day` did not spend; nothing where its cost is unknown."""
        share = self._dealt.pop(day)
        if self._limited and cost_usd is not None:
            self._left += max(0.0, share - cost_usd)


def make_report(run_id: str, days: list[DayReport]) -> BackfillReport:
    """Return the report of a backfill's days."""
    return BackfillReport(
        run_id=run_id,
        days=days,
        accepted=sum(day.accepted or 0 for day in days),
        paid=sum(day.paid or 0 for day in days),
        problem="" if all(day.done for day in days) else failed_message(days),
    )


def backfill_headline(report: BackfillReport) -> str:
    """Say in one sentence how a backfill ended."""
    days, pairs, calls = len(report.days), report.accepted, report.paid
    return f"{counted(days, 'day')} done: {counted(pairs, 'pair')} accepted, {counted(calls, 'call')} paid"


def failed_message(days: list[DayReport]) -> str:
    """Name the days that failed, with what stopped the first of them."""
    failed = [day for day in days if not day.done]
    names = ", ".join(day.partition for day in failed)
    first = failed[0]
    others = f"The other days are done; {AGAIN}" if len(failed) < len(days) else AGAIN.capitalize()
    return (
        f"{len(failed):,} of {counted(len(days), 'day')} failed: {names}. {first.partition}: "
        f"{first.message.rstrip('.')}. {others}: what is done costs nothing."
    )


def backfill_markdown(days: list[DayReport]) -> str:
    """Return what became of each day, and all of them together, as Markdown."""
    rows = [[day.partition, escape(day.state), *day.figures] for day in days]
    done = sum(day.done for day in days)
    accepted = sum(day.accepted or 0 for day in days)
    header = ["Day", "State", "Accepted", "Rejected", "Calls paid", "From the journal", "Cost"]
    parts = [
        f"## {done:,} of {counted(len(days), 'day')} done, {counted(accepted, 'pair')} accepted",
        table(header, rows),
    ]
    # The others say what their figures say.
    parts += [f"**{day.partition}**: {escape(day.message, most=1_000)}" for day in days if not day.done]
    return "\n\n".join(parts) + "\n"
