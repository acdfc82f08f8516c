"""Upkeep of a destination: weekly by a deployment, or by hand."""

from dataclasses import asdict
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from flows import parameters as of
from flows.allowed import check_allowed
from flows.order import check_given
from flows.telling import name_run, tell
from tasks.core.layout import Layout, check_uri
from tasks.core.upkeep import Forgetting, UpkeepReport, check_forgotten, upkeep_headline


@flow(name="maintain", flow_run_name=name_run, validate_parameters=True)
@tell(upkeep_headline)
def maintain(
    *,
    destination: str = "",
    staging_days: of.Days = 7,
    history_days: of.Days = 7,
    rejected_days: of.Days = 0,
    reports_days: of.Days = 0,
    journal_days: of.Days = 0,
    forget: str = "",
) -> UpkeepReport:
    """Tidy a destination: merge small files, and remove what is superseded or older than asked for.

    It may run beside a night. What the journal or the rejected rows lose is paid for or
    judged again where the source still holds its description.

    Args:
        destination: Prefix of the dataset, for example s3://bucket/dataset.
        staging_days: Days that staged files of ended runs are kept.
        history_days: Days that superseded versions of the tables are kept, at least 1.
        rejected_days: Days that rejected rows are kept. 0: for ever.
        reports_days: Days that the runs' reports are kept. 0: for ever.
        journal_days: Days that completions are kept, at least. 0: for ever.
        forget: Text of a task description to erase everywhere, instead of tidying: tables with all their
            older versions, journal, staging, brainstormed descriptions, exports and reports. Waits for runs to end.
            Prefect keeps this text as the run's parameter: delete the run afterwards.
    """
    layout = check_maintain(**locals())

    from tasks.forget import forget_description  # noqa: PLC0415  (not for --help)
    from tasks.maintain import Ages, measure, tidy_destination  # noqa: PLC0415
    from tasks.publicise import show_upkeep  # noqa: PLC0415

    before = measure(layout)
    if forget:
        said = asdict(forget_description(layout, str(flow_run.id), forget, Forgetting()))
    else:
        ages = Ages(staging_days, history_days, rejected_days, reports_days, journal_days)
        said = {"done": tidy_destination(layout, str(flow_run.id), ages, [])}
    report = UpkeepReport(destination=layout.destination, **said, bytes_before=before, bytes_after=measure(layout))
    show_upkeep(report)
    return report


def check_maintain(*, destination: str, forget: str, **_: Any) -> Layout:
    """Return where the destination's parts lie.

    Raises:
        UsageError: It is missing, no URI, or not allowed here; or there is but white space to forget.
    """
    check_given({"--destination": destination})
    if forget:
        check_forgotten(forget)
    return Layout(check_allowed("--destination", check_uri(destination, "--destination")))
