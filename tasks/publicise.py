"""Shows a run's report in Prefect's UI, as artifacts."""

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from tasks.core.markdown import report_markdown
from tasks.core.report import RunReport, reason_rows


@task(name="report", task_run_name="report", cache_policy=NO_CACHE)
def show_report(report: RunReport) -> None:
    """Keep the report as a Markdown artifact and its reasons as a table artifact."""
    create_markdown_artifact(report_markdown(report), key="run-report", description="What the run did")
    if report.reasons:
        create_table_artifact(reason_rows(report), key="rejected-reasons", description="Why rows were rejected")
