"""Task descriptions out of nothing, and pairs for them.

    brainstorm >> extract -> generate -> validate -> load

The first step of the recipe: a model lists short text matching tasks, one
description a row. With `then_generate` this flow is the parent of two: itself
without it, and the main flow on what that has brought.
"""

from prefect import flow

from flows import parameters as of
from flows.order_lists import hand_on, place_brainstorm
from flows.short_text_matching import generate_short_text_pairs
from flows.telling import call, name_run, tell
from tasks.core.brainstorming import Category
from tasks.core.counting import counted
from tasks.core.errors import RejectedError
from tasks.core.findings import BrainstormReport, brainstorm_headline
from tasks.core.plans import Plan
from tasks.core.report import RunReport, headline
from tasks.core.requests import LanguageMix


def either_headline(report: BrainstormReport | RunReport) -> str:
    """Say in one sentence how it ended."""
    return headline(report) if isinstance(report, RunReport) else brainstorm_headline(report)


@flow(name="brainstorm", flow_run_name=name_run, validate_parameters=True)
@tell(either_headline)
def brainstorm(
    *,
    destination: str = "",
    model_name: str = "",
    descriptions: of.Descriptions = 100,
    topics: list[str] = [],  # noqa: B006  (Prefect's form shows it)
    category: Category = "text-matching-short",
    then_generate: bool = False,
    languages: of.Languages = ["English"],  # noqa: B006
    language_mix: LanguageMix = "each",
    pairs_per_task: of.PairsPerTask = 1,
    max_cost_usd: of.Dollars = 0.0,
    api_base: str = "",
    model_mix: list[str] = [],  # noqa: B006
    fallback_models: list[str] = [],  # noqa: B006
    batch: bool = False,
    batch_deadline: of.Hours = 24,
    max_attempts_per_pair: of.Attempts = 3,
    model_revision: str = "",
    temperature: of.Temperature = 1.0,
    top_p: of.TopP = 1.0,
    concurrency: of.Concurrency = 256,
    requests_per_minute: of.Count = 0,
    tokens_per_minute: of.Count = 0,
    input_cost_per_token: of.Dollars = 0.0,
    output_cost_per_token: of.Dollars = 0.0,
    seed: int = 42,
) -> BrainstormReport | RunReport:
    """Brainstorm task descriptions into the destination's tasks/, and generate pairs for them if asked to.

    Args:
        destination: Prefix of the dataset, for example s3://bucket/dataset; the descriptions go to its tasks/.
        model_name: The model, or the main one of several, as litellm names it: provider/model, for example
            openai/gpt-4.1-mini.
        descriptions: Task descriptions wanted in all, with those that are in tasks/ already.
        topics: Subjects to start from, for example cooking. Empty: a spread of our own.
        category: Kind of task; the query and the document of this one are both very short.
        then_generate: Run the main flow on all descriptions when they are there. What the main flow has and this one
            has not is at its default; or run it on tasks/ yourself.
        languages: Languages of the generated texts, as English names, or all. A column language in
            the source (names or codes) wins.
        language_mix: each wants every description in each of the languages; paper in one of all languages,
            drawn with the shares of arXiv:2401.00368.
        pairs_per_task: Accepted pairs wanted per task description and language.
        max_cost_usd: Stop before this run costs more, lists and pairs, in US dollars; run again, it goes on. 0: no
            limit.
        api_base: Address of an OpenAI-compatible server such as vLLM, Ollama or a gateway, for the models of the
            main model's provider.
        model_mix: Other models and the share of the pairs' requests that each of them writes, name=share, for example
            openai/gpt-4.1-nano=0.3; the main model writes the rest, and all lists.
        fallback_models: Models that take over, in this order, what a model refuses or cannot answer of the pairs.
        batch: Ask the main model for the pairs by its provider's batch API, at half price and within hours. The lists,
            the others of a mix, and fallbacks, are called live, at the full price.
        batch_deadline: Hours after the pairs' start at which batches are ended, and live calls answer what they have
            not.
        max_attempts_per_pair: What validation rejects is asked for again, up to this many completions per wanted
            pair over all runs.
        model_revision: Tells two models of one name apart, so that the new one is asked anew.
        temperature: Sampling temperature.
        top_p: Nucleus sampling: share of probability that is drawn from.
        concurrency: Most calls in flight at once; the limit adapts below it.
        requests_per_minute: Most calls a minute. 0: as the provider's answers allow.
        tokens_per_minute: Most tokens a minute, in and out. 0: as the provider's answers allow.
        input_cost_per_token: US dollars an input token. 0: litellm's own price.
        output_cost_per_token: US dollars an output token. 0: litellm's own price.
        seed: Another seed asks for fresh completions; the same one asks for the same again.
    """
    given = dict(locals())
    wish = place_brainstorm(**given)
    if then_generate:
        found = require_some(call(brainstorm, **given | {"then_generate": False}))
        report: RunReport = call(generate_short_text_pairs, **hand_on(given, found.source, found.spent_usd))
        return report

    # Imported here, so that the form and --help do not wait for polars.
    from tasks.brainstorm import gather_task_descriptions  # noqa: PLC0415
    from tasks.hold_source import hold_source  # noqa: PLC0415
    from tasks.open_model import open_model  # noqa: PLC0415
    from tasks.publicise import show_brainstorm  # noqa: PLC0415

    # Two at once would pay for the same lists.
    with hold_source(wish.order) as check, open_model(wish.order, Plan()) as model:
        brought = gather_task_descriptions(wish, model, check)
    show_brainstorm(brought)
    return brought


def require_some(found: BrainstormReport) -> BrainstormReport:
    """Return `found`, in which there are descriptions to make pairs for.

    Raises:
        RejectedError: There are none.
    """
    if found.total:
        return found
    reasons = ", ".join(f"{reason} {rows:,}" for reason, rows in found.reasons.items()) or "nothing was in them"
    read = f"Read {found.rejected_uri}, then change" if found.rejected else "Change"
    raise RejectedError(
        f"No task description came of {counted(found.lists, 'list')} ({reasons}), so there is nothing to make pairs "
        f"for. {read} the model or --topics, and run again."
    )
