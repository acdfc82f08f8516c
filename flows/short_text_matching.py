"""Short text-matching pairs for a bucket of task descriptions.

    extract -> generate -> validate -> load

Prefect makes the form in its UI from the signature and docstring below, and
`flows.run` makes the command line from the same two.
"""

from collections.abc import Sequence
from functools import partial

from prefect import flow

from flows import parameters as of
from flows.cluster import StepRunner
from flows.order import place_order
from flows.telling import name_run, tell
from tasks.core.plans import Shard
from tasks.core.report import RunReport, headline
from tasks.core.requests import LanguageMix, OnPublished, RowFlag
from tasks.window import in_window


@flow(
    name="short-text-matching",
    flow_run_name=name_run,
    task_runner=StepRunner(),  # type: ignore[arg-type]  # Prefect's own type
    validate_parameters=True,
)
@tell(headline)
def generate_short_text_pairs(
    *,
    source: str = "",
    destination: str = "",
    model_name: str = "",
    partition: of.Day = "",
    languages: of.Languages = ["English"],  # noqa: B006  (Prefect's form shows it)
    language_mix: LanguageMix = "each",
    pairs_per_task: of.PairsPerTask = 1,
    on_published: OnPublished = "add",
    max_cost_usd: of.Dollars = 0.0,
    limit: of.Count = 0,
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
) -> RunReport:
    """Generate short text-matching pairs for every task description of a source, and publish them.

    Args:
        source: Prefix or object of task descriptions (JSONL, CSV, Parquet or text, also .gz or .zst);
            may hold {partition}. For example s3://bucket/tasks.
        destination: Prefix that receives the dataset, for example s3://bucket/dataset.
        model_name: The model, or the main one of several, as litellm names it: provider/model, for example
            openai/gpt-4.1-mini.
        partition: Day that this run publishes, YYYY-MM-DD. Empty: the day of the scheduled start in UTC,
            or the day before it where the source holds {partition}.
        languages: Languages of the generated texts, as English names, or all. A column language in
            the source (names or codes) wins.
        language_mix: each wants every description in each of the languages; paper in one of all languages,
            drawn with the shares of arXiv:2401.00368.
        pairs_per_task: Accepted pairs wanted per task description and language.
        on_published: add generates what is missing; redo judges the whole partition again, from
            completions already paid for, and replaces it.
        max_cost_usd: Stop before this run costs more, in US dollars; run again, it goes on. 0: no limit.
        limit: Use only the first descriptions that are not served, show a preview and never publish. 0: all.
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
        concurrency: Most calls in flight at once, in all models; the limit adapts below it.
        requests_per_minute: Most calls a minute, to each model. 0: as the provider's answers allow.
        tokens_per_minute: Most tokens a minute, in and out, of each model. 0: as the provider's answers allow.
        input_cost_per_token: US dollars an input token of the main model. 0: litellm's own price.
        output_cost_per_token: US dollars an output token of the main model. 0: litellm's own price.
        max_rejected_share: Publish nothing above this share of rejected rows (0 to 1).
        max_drift: Publish nothing that differs more than this from the partition before, in acceptance,
            duplicates, languages or lengths (0 to 1; 1: whatever it is).
        reject_flagged: Flags that reject a row instead of marking it.
        seed: The same seed asks for the same completions again; another one for fresh ones, of what is missing or,
            in a redo, of everything.
    """
    order = place_order(**locals())

    # Imported here, so that the form and --help do not wait for polars and deltalake.
    from tasks.again import ask_again  # noqa: PLC0415
    from tasks.collect import answer_in_batches  # noqa: PLC0415
    from tasks.extract import extract_task_descriptions  # noqa: PLC0415
    from tasks.generate import generate_completions  # noqa: PLC0415
    from tasks.hold_source import hold_source  # noqa: PLC0415
    from tasks.load import publish_partition  # noqa: PLC0415
    from tasks.open_model import open_model  # noqa: PLC0415
    from tasks.publicise import show_report  # noqa: PLC0415
    from tasks.validate import validate_pairs  # noqa: PLC0415

    judged: list[Shard] = []
    with hold_source(order) as check:
        plan = extract_task_descriptions(order)
        with open_model(order, plan) as model:
            shards: Sequence[Shard] = plan.shards
            at_once = model.steps_in_flight
            while shards:
                shards = answer_in_batches(shards, order, model, check)
                completed = in_window(
                    shards, partial(generate_completions.submit, order=order, model=model), at_once, check
                )
                judged += in_window(completed, partial(validate_pairs.submit, order=order), at_once, check)
                shards = ask_again(order, plan, judged)
        report = publish_partition(order, plan, judged)
    show_report(report)
    return report
