"""An immutable snapshot of the published pairs, in the formats that people train on."""

from typing import Any

from prefect import flow

from flows import parameters as of
from flows.allowed import check_allowed
from flows.order import check_given
from flows.telling import tell
from tasks.core.counting import counted
from tasks.core.errors import UsageError
from tasks.core.exports import ExportOrder, ExportReport
from tasks.core.layout import check_partition, check_uri
from tasks.core.naming import ALL, resolve_languages
from tasks.core.requests import RowFlag


def export_headline(report: ExportReport) -> str:
    """Say in one sentence what the export holds."""
    done = "exported" if report.exported else "there already"
    pairs = counted(sum(report.rows.values()), "pair")
    return f"{report.version}: {pairs} {done}, {sum(report.left_out.values()):,} left out"


@flow(name="export", flow_run_name="export-{destination}", validate_parameters=True)
@tell(export_headline)
def export_pairs(
    *,
    destination: str = "",
    export_version: of.Name = "",
    from_day: of.Day = "",
    to_day: of.Day = "",
    languages: of.Languages = [ALL],  # noqa: B006  (Prefect's form shows it)
    leave_out_flagged: list[RowFlag] = [],  # noqa: B006
    held_out: list[str] = [],  # noqa: B006
    validation_share: of.Share = 0.02,
    test_share: of.Share = 0.02,
    licence: str = "other",
) -> ExportReport:
    """Write the published pairs as a dataset that sentence-transformers, FlagEmbedding and datasets read.

    Duplicates over all days are left out, the earliest day's stays. An export never
    changes: the same command again finds it and does nothing.

    Args:
        destination: Prefix of the dataset, as of the main flow, for example s3://bucket/dataset.
        export_version: Name of the export. Empty: v and the number of the pairs table's version.
        from_day: First day, YYYY-MM-DD, included. Empty: from the first.
        to_day: Last day, YYYY-MM-DD, included. Empty: to the last.
        languages: Languages of the pairs, as English names, or all.
        leave_out_flagged: Flags whose pairs are left out.
        held_out: Prefixes or objects of texts that no pair may hold, such as a benchmark's (JSONL, CSV,
            Parquet or text; every text column counts).
        validation_share: Share of the task descriptions in the validation split (0 to 1).
        test_share: Share of the task descriptions in the test split (0 to 1).
        licence: The licence's identifier on Hugging Face, for the dataset card.
    """
    order = place_export(**locals())

    from tasks.clients.storage import require_bucket  # noqa: PLC0415  (not for --help)
    from tasks.export import write_export  # noqa: PLC0415

    # Apart from the step, which tries for longer to reach a storage.
    require_bucket(order.destination)
    return write_export(order)


def place_export(
    *, destination: str, export_version: str, from_day: str, to_day: str, languages: list[str], **settings: Any
) -> ExportOrder:
    """Return the order of this export, its names checked.

    Raises:
        UsageError: A parameter is missing or cannot be right.
    """
    check_given({"--destination": destination})
    given = {"--from-day": from_day, "--to-day": to_day}
    days = [check_partition(day, option) if day else "" for option, day in given.items()]
    if all(days) and days[0] > days[1]:
        raise UsageError(f"--from-day {days[0]} is after --to-day {days[1]}. Swap them.")
    if settings["validation_share"] + settings["test_share"] >= 1:
        raise UsageError("--validation-share and --test-share leave nothing for train. Give less than 1 in all.")
    settings["held_out"] = tuple(
        check_allowed("--held-out", check_uri(uri, "--held-out")) for uri in settings["held_out"]
    )
    settings["leave_out_flagged"] = tuple(settings["leave_out_flagged"])
    return ExportOrder(
        destination=check_allowed("--destination", check_uri(destination, "--destination")),
        version=export_version,
        start_date=days[0],
        end_date=days[1],
        languages=tuple(resolve_languages(languages)),
        **settings,
    )
