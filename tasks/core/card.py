"""The dataset card of an export: a README.md with Hugging Face's YAML."""

import json
from typing import Any

from tasks.core.counting import counted, noun
from tasks.core.exports import SPLITS, ExportReport
from tasks.core.languages import LANGUAGES
from tasks.core.markdown import escape, table
from tasks.core.prompts import PROMPT_HASH, TEMPLATE

# Upper bounds (rows, exclusive) of Hugging Face's size categories.
_SIZES = {
    1_000: "n<1K",
    10_000: "1K<n<10K",
    100_000: "10K<n<100K",
    1_000_000: "100K<n<1M",
    10_000_000: "1M<n<10M",
    100_000_000: "10M<n<100M",
}
_CAUSES = {
    "flagged": "marked with a flag that this export leaves out",
    "duplicate": "the same words as an earlier pair, in whatever order",
    "near_duplicate": "an earlier pair but for one word",
    "held_out": "holds a text that this export keeps out",
    "shared_with_another_split": "shares a text with a pair of validation or test",
}


def make_card(report: ExportReport) -> str:
    """Return the text of README.md."""
    return f"---\n{_yaml(_metadata(report))}---\n\n" + "\n\n".join(_sections(report)) + "\n"


def _metadata(report: ExportReport) -> dict[str, Any]:
    configs = [
        {
            "config_name": config,
            **({"default": True} if config == "pairs" else {}),
            "data_files": [
                {"split": split, "path": uri.removeprefix(f"{report.uri}/")}
                for split in SPLITS
                for uri in uris
                if f"/{split}." in uri
            ],
        }
        for config, uris in report.files.items()
        if config != "flag_embedding"  # datasets reads all configs of a folder with one reader, the first one's
    ]
    return {
        "pretty_name": f"Short text-matching pairs {report.version}",
        "license": report.licence,
        "language": sorted({LANGUAGES[name].base for name in report.languages}),
        "multilinguality": ["monolingual" if len(report.languages) < 2 else "multilingual"],
        "size_categories": [size_category(sum(report.rows.values()))],
        "task_categories": ["sentence-similarity", "feature-extraction"],
        "annotations_creators": ["machine-generated"],
        "language_creators": ["machine-generated"],
        "tags": ["sentence-transformers", "embeddings", "synthetic", "text-matching"],
        "configs": configs,
    }


def size_category(rows: int) -> str:
    """Return Hugging Face's name for a number of rows."""
    return next((name for bound, name in _SIZES.items() if rows < bound), "100M<n<1B")


def _yaml(values: dict[str, Any]) -> str:
    """Write block YAML whose leaves are JSON, which YAML includes."""
    return "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())


def _sections(report: ExportReport) -> list[str]:
    return [
        *_contents(report),
        "## How the pairs were made",
        *_origins(report),
        "## What was left out",
        *_left_out(report),
        "## Languages",
        table(["Language", "Code", "Pairs"], _language_rows(report)),
        "## Known limits",
        _limits(report),
        *_examples(report),
    ]


def _contents(report: ExportReport) -> list[str]:
    return [
        f"# Short text-matching pairs {escape(report.version)}",
        f"{counted(sum(report.rows.values()), 'pair')} of short texts that match, in "
        f"{counted(len(report.languages), 'language')}, for training embedding models. Both texts of every "
        "pair were written by a language model; no person has read them all.",
        "Configs: `pairs` has exactly `anchor` and `positive`, which is what sentence-transformers takes; `full` has "
        "every column, with where each row comes from. FlagEmbedding takes the files under `flag_embedding/`: "
        "`query`, `pos` and `neg` (empty, to be mined), with all positives of one query in one row; datasets reads "
        'them with `load_dataset("json", data_files="flag_embedding/train.jsonl")`.',
        table(["Split", "Pairs"], [[split, f"{rows:,}"] for split, rows in report.rows.items()]),
        f"A task description is in one split only, by a hash of its text: {report.validation_share:.1%} of "
        f"descriptions in validation, {report.test_share:.1%} in test. No row moves from one version to the next "
        "while these shares stay.",
    ]


def _origins(report: ExportReport) -> list[str]:
    days = f"{report.partitions[0]} to {report.partitions[-1]}" if report.partitions else "no day"
    is_ours = PROMPT_HASH in report.prompt_hashes
    parts = [
        f"Each task description was given to a model, which wrote both texts (recipe: arXiv:2401.00368, short-short "
        f"matching). The replies were parsed without guessing and judged by rules. Published: {days}; table version "
        f"{report.pairs_version}.",
        table(["Model", "Pairs"], [[escape(name), f"{rows:,}"] for name, rows in report.models.items()]),
        f"Prompts, by hash: {', '.join(report.prompt_hashes)}." + (" The one in use:" if is_ours else ""),
    ]
    if is_ours:
        parts.append("\n".join(f"    {line}" for line in TEMPLATE.splitlines()))
    return parts


def _left_out(report: ExportReport) -> list[str]:
    rejected = sum(report.rejected.values())
    kept_back = report.judged - sum(report.rows.values()) - rejected
    parts = [
        f"Of {counted(report.judged, 'judged row')} {counted(rejected, 'was', 'were')} rejected, each with every "
        f"reason that holds, and {kept_back:,} more {noun(kept_back, 'was', 'were')} published, but "
        f"{noun(kept_back, 'is', 'are')} not in this export."
    ]
    if report.rejected:
        rows = [[escape(reason), f"{count:,}"] for reason, count in report.rejected.items()]
        parts.append(table(["Rejected because", "Rows, first reason"], rows))
    if report.left_out:
        rows = [[_CAUSES[cause], f"{count:,}"] for cause, count in report.left_out.items()]
        parts.append(table(["Published, but not in this export", "Pairs"], rows))
    if report.held_out:
        named = ", ".join(escape(uri) for uri in report.held_out)
        parts.append(
            f"Kept out: every pair that holds a text of {named} ({counted(report.held_out_texts, 'text')}), compared "
            "without case, accents, punctuation and order of words."
        )
    return parts


def _limits(report: ExportReport) -> str:
    return (
        f"- {counted(report.grouped_rows, 'pair')} in {counted(report.groups, 'group')} share a text with another pair "
        "(`group_id` in `full`). In-batch negatives are wrong inside a group: use a batch sampler without duplicates.\n"
        + "".join(
            f"- {counted(count, 'pair carries', 'pairs carry')} the flag `{flag}`.\n"
            for flag, count in report.flags.items()
        )
        + "- The languages are those that the model was asked for; near languages and romanised ones are hard to tell "
        "apart, and facts in the texts may be wrong.\n"
        "- Whether the model provider's terms allow training on what its model wrote is for you to check."
    )


def _examples(report: ExportReport) -> list[str]:
    rows = [[escape(one["input"]), escape(one["positive_document"])] for one in report.samples]
    return ["## Examples", table(["Anchor", "Positive"], rows)] if rows else []


def _language_rows(report: ExportReport) -> list[list[str]]:
    return [[escape(name), LANGUAGES[name].base, f"{rows:,}"] for name, rows in report.languages.items()]
