"""The main flow once per day of a range, from the UI or the command line."""

from datetime import UTC, date, datetime
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from flows import parameters as of
from flows.order import place_order
from flows.short_text_matching import generate_short_text_pairs
from flows.telling import name_run, tell
from tasks.core.backfill import BackfillReport, backfill_headline, days_between, make_report
from tasks.core.layout import PARTITION_FIELD
from tasks.core.requests import LanguageMix, OnPublished, RowFlag

# The deployment whose runs make the days; without it they are made in this process.
PARTITION_DEPLOYMENT = "short-text-matching/partition"
# The parameters that are not handed on to a day's run.
OWN = ("start_date", "end_date", "max_parallel")


@flow(name="backfill", flow_run_name=name_run, validate_parameters=True)
@tell(backfill_headline)
def backfill(
    *,
    start_date: date,
    end_date: date,
    on_published: OnPublished = "add",
    model_name: str = "",
    languages: of.Languages = ["English"],  # noqa: B006  (Prefect's form shows it)
    language_mix: LanguageMix = "each",
    pairs_per_task: of.PairsPerTask = 1,
    max_cost_usd: of.Dollars = 0.0,
    max_parallel: of.MaxParallel = 2,
    source: str = "",
    destination: str = "",
    api_base: str = "",
    model_mix: list[str] = [],  # noqa: B006
    fallback_models: list[str] = [],  # noqa: B006
    batch: bool = False,
    batch_deadline: of.Hours = 24,
    max_attempts_per_pair: of.Attempts = 3,
    model_revision: str = "",
    temperature: of.Temperature = 1.0,
    top_p: of.TopP = 1.0,
    max_tokens: of.MaxTokens = 512,
    structured_output: bool = True,
    concurrency: of.Concurrency = 256,
    requests_per_minute: of.Count = 0,
    tokens_per_minute: of.Count = 0,
    input_cost_per_token: of.Dollars = 0.0,
    output_cost_per_token: of.Dollars = 0.0,
    max_rejected_share: of.Share = 0.5,
    max_drift: of.Share = 1.0,
    reject_flagged: list[RowFlag] = [],  # noqa: B006
    seed: int = 42,
) -> BackfillReport:
    """Generate pairs for every day from start_date to end_date, as the nightly run would.

    Days that are done cost nothing: what a destination holds is not asked for again.
    A day that fails does not stop the others; cancelling the backfill cancels its days.

    Args:
        start_date: First day, YYYY-MM-DD, included.
        end_date: Last day, YYYY-MM-DD, included; not in the future (UTC).
        on_published: add generates what is missing; redo judges each day again, from
            completions already paid for, and replaces it.
        model_name: The model, or the main one of several, as litellm names it: provider/model, for example
            openai/gpt-4.1-mini.
        languages: Languages of the generated texts, as English names, or all. A column language in
            the source (names or codes) wins.
        language_mix: each wants every description in each of the languages; paper in one of all languages,
            drawn with the shares of arXiv:2401.00368.
        pairs_per_task: Accepted pairs wanted per task description and language.
        max_cost_usd: Stop before the whole range costs more, in US dollars. Every day gets an equal part of what is
            left when it begins; one that leaves no report counts as having spent it. 0: no limit.
        max_parallel: Days at work at once. A source without {partition} has the same
            descriptions every day, so its days run one after another.
        source: Prefix or object of task descriptions (JSONL, CSV, Parquet or text, also .gz or .zst);
            may hold {partition}. For example s3://bucket/tasks.
        destination: Prefix that receives the dataset, for example s3://bucket/dataset.
        api_base: Address of an OpenAI-compatible server such as vLLM, Ollama or a gateway, for the models of the
            main model's provider.
        model_mix: Other models and the share of the requests that each of them writes, name=share, for example
            openai/gpt-4.1-nano=0.3; the main model writes the rest.
        fallback_models: Models that take over, in this order, what a model refuses or cannot answer.
        batch: Ask the main model by its provider's batch API, at half price and within hours. The others of a mix,
            and fallbacks, are called live, at the full price.
        batch_deadline: Hours after the start at which batches are ended, and live calls answer what they have not.
        max_attempts_per_pair: What validation rejects is asked for again, up to this many completions per wanted
            pair over all runs.
        model_revision: Tells two models of one name apart, so that the new one is asked anew.
        temperature: Sampling temperature.
        top_p: Nucleus sampling: share of probability that is drawn from.
        max_tokens: Most tokens of one completion.
        structured_output: Ask for a JSON schema where the provider takes one.
        concurrency: Most calls in flight at once, per day and in all models; the limit adapts below it.
        requests_per_minute: Most calls a minute, per day and model. 0: as the provider's answers allow.
        tokens_per_minute: Most tokens a minute, in and out, per day and model. 0: as the provider's answers allow.
        input_cost_per_token: US dollars an input token of the main model. 0: litellm's own price.
        output_cost_per_token: US dollars an output token of the main model. 0: litellm's own price.
        max_rejected_share: Publish no day above this share of rejected rows (0 to 1).
        max_drift: Publish no day that differs more than this from the one before, in acceptance, duplicates,
            languages or lengths (0 to 1; 1: whatever it is).
        reject_flagged: Flags that reject a row instead of marking it.
        seed: The same seed asks for the same completions again; another one for fresh ones, of what is missing or,
            in a redo, of everything.
    """
    parameters = dict(locals())
    days = check_backfill(**parameters)
    shared = {name: value for name, value in parameters.items() if name not in OWN}

    # Imported here, so that the form and --help do not wait for polars and deltalake.
    from tasks.partitions import deployment_exists, run_in_process, run_on_deployment  # noqa: PLC0415
    from tasks.publicise import show_days  # noqa: PLC0415

    if deployment_exists(PARTITION_DEPLOYMENT):
        most = max_parallel if PARTITION_FIELD in source else 1
        done = run_on_deployment(PARTITION_DEPLOYMENT, days, shared, most)
    else:
        done = run_in_process(generate_short_text_pairs, days, shared)
    show_days(done)
    return make_report(str(flow_run.id), done)


def check_backfill(*, start_date: date, end_date: date, max_parallel: int, **shared: Any) -> list[str]:  # noqa: ARG001
    """Return the days of a backfill, as YYYY-MM-DD.

    Raises:
        UsageError: The range or any other parameter cannot be right; no day was begun.
    """
    days = days_between(start_date, end_date, datetime.now(UTC).date())
    place_order(partition=days[0], limit=0, **shared)
    return days
