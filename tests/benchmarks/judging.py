"""What judging costs, and how right it is about languages.

    python -m tests.benchmarks.judging            1 M rows judged, duplicates among 10 M
    python -m tests.benchmarks.judging --scale 4  the same with a quarter of the rows
    python -m tests.benchmarks.judging languages  right pairs rejected and wrong ones caught

Each row of the first table is measured in a process of its own: rows a second by the
clock, microseconds of CPU a row, and peak resident memory above what the imports take.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.table import Table

from tasks.core.columns import COMPLETIONS, REQUESTS
from tasks.core.duplicates import find_duplicates, find_groups
from tasks.core.judging import judge_completions
from tasks.core.keys import fold, hash_words, pair_key, text_key
from tasks.core.rules import judge
from tests.benchmarks.figures import peak_mb, resident_mb
from tests.orders import ORDER
from tests.test_detection import judge_pairs, labelled, rejected_share, samples, wrong_rows

JUDGED = ("reasons", "flags", "input_key", "positive_key")
FILE_ROWS = 250_000


def make_rows(folder: Path, rows: int) -> None:
    """Write replies of 6 to 12 words in many languages, seven in ten English; one in fifty repeats another."""
    vocabulary: dict[str, list[str]] = {}
    for language, one, other in (*labelled(), *samples()):
        vocabulary.setdefault(language, []).extend(f"{one} {other}".split())
    generator = random.Random(1)
    names = list(vocabulary)
    for first in range(0, rows, FILE_ROWS):
        languages = [generator.choice(names) if generator.random() < 0.3 else "English" for _ in range(FILE_ROWS)]
        texts = [
            [" ".join(generator.choices(vocabulary[language], k=generator.randint(6, 12))) for _ in range(2)]
            for language in languages
        ]
        for place in range(0, FILE_ROWS, 50):
            texts[place], languages[place] = texts[place // 2 + 1], languages[place // 2 + 1]
        frame = pl.DataFrame(texts, schema=["input", "positive_document"], orient="row").with_columns(
            plan_row=pl.int_range(first, first + FILE_ROWS, dtype=pl.Int64),
            language=pl.Series(languages),
            task=pl.lit("match a question about everyday life with its answer"),
            text=pl.struct("input", "positive_document").struct.json_encode(),
            finish_reason=pl.lit("stop"),
            error=pl.lit(None, pl.String),
            problem=pl.lit(None, pl.String),
        )
        frame.write_parquet(folder / f"{first:09}.parquet")


def make_keys(folder: Path, rows: int) -> None:
    """Write published pairs: numbered words, one pair in ten repeated, one input in ten shared."""
    for first in range(0, rows, FILE_ROWS):
        number = pl.int_range(first, first + FILE_ROWS, dtype=pl.Int64)
        frame = pl.select(plan_row=number).with_columns(
            one=pl.when(pl.col("plan_row") % 10 < 2).then(pl.col("plan_row") // 7).otherwise("plan_row"),
            other=pl.when(pl.col("plan_row") % 10 == 0).then(pl.col("plan_row") // 7).otherwise("plan_row"),
        )
        texts = frame.select(
            "plan_row",
            input=pl.format("where can I find w{} near w{}", pl.col("one") % 9973, pl.col("one")),
            positive_document=pl.format("a shop that sells w{} beside w{}", pl.col("other"), pl.col("other") % 9973),
        )
        keyed = texts.with_columns(
            input_key=text_key(hash_words(fold(pl.col("input")))),
            positive_key=text_key(hash_words(fold(pl.col("positive_document")))),
        )
        keyed.with_columns(pair_key=pair_key()).write_parquet(folder / f"{first:09}.parquet")


def judge_all(folder: Path) -> None:
    """Run every row rule in one streaming pass, from files to a file with what the rules say of each row."""
    judge(pl.scan_parquet(folder / "*.parquet")).select("plan_row", *JUDGED).sink_parquet(folder / "judged")


def parse_and_judge(folder: Path) -> None:
    """Do what the validate step does with each shard of 5,000 replies."""
    given = ("plan_row", "language", "task", "text", "finish_reason", "error")
    for path in sorted(folder.glob("*.parquet")):
        rows = pl.read_parquet(path, columns=list(given))
        missing = {name: dtype for name, dtype in (REQUESTS | COMPLETIONS).items() if name not in given}
        nulls = {name: pl.lit(None, dtype) for name, dtype in missing.items()}
        whole = rows.with_columns(**nulls | {"sample_index": pl.lit(0, pl.Int64)})
        for shard in whole.iter_slices(5_000):
            judge_completions(shard.lazy(), ORDER)


def find_all_duplicates(folder: Path) -> None:
    """Find exact and near duplicates."""
    find_duplicates(pl.scan_parquet(folder / "*.parquet"))


def find_all_groups(folder: Path) -> None:
    """Find the pairs that share a text."""
    find_groups(pl.scan_parquet(folder / "*.parquet"))


MEASURED: dict[str, tuple[Callable[[Path, int], None], Callable[[Path], None], int]] = {
    "all row rules, one streaming pass": (make_rows, judge_all, 1_000_000),
    "parsing and judging, in shards": (make_rows, parse_and_judge, 250_000),
    "duplicates, exact and near": (make_keys, find_all_duplicates, 10_000_000),
    "groups that share a text": (make_keys, find_all_groups, 10_000_000),
}


def measure(name: str, folder: Path, rows: int) -> dict[str, float]:
    """Run one measurement over the files in `folder`, which hold so many rows."""
    _, run, _ = MEASURED[name]
    judge_pairs([("German", *row[1:]) for row in labelled()[:5]]).collect()  # the detectors' models are imports, too
    before, clock, cpu = resident_mb(), time.monotonic(), time.process_time()
    run(folder)
    seconds, spent = time.monotonic() - clock, time.process_time() - cpu
    return {"rate": rows / seconds, "cpu": 1e6 * spent / rows, "mb": peak_mb() - before}


def show_speed(scale: int) -> None:
    """Measure everything, on one row of `scale` of them, and print the table."""
    table = Table("what", "rows", "rows/s", "µs CPU a row", "MB above imports")
    for name, (make, _, most) in MEASURED.items():
        rows = max(FILE_ROWS, most // scale)
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder), rows)
            command = [sys.executable, "-m", "tests.benchmarks.judging", name, folder, str(rows)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, env=os.environ).stdout)
        table.add_row(name, f"{rows:,}", f"{found['rate']:,.0f}", f"{found['cpu']:.1f}", f"{found['mb']:,.0f}")
    Console().print(table)


def show_languages() -> None:
    """Print the shares that tests/test_detection.py holds."""
    table = Table("pairs of tests/data/languages.tsv and the demo", "pairs", "rejected")
    english = [row for row in (*labelled(), *samples()) if row[0] == "English"]
    names = [name for name, _, _ in labelled()]
    sets = {
        f"right, {len(set(names))} languages": [*labelled(), *samples()],
        "both texts in another language": wrong_rows(whole=True),
        "one text in another language": wrong_rows(whole=False),
        "English under each of the other languages": [
            (name, *row[1:]) for name in sorted(set(names) - {"English"}) for row in english
        ],
    }
    for name, rows in sets.items():
        table.add_row(name, f"{len(rows):,}", f"{rejected_share(rows):.1%}")
    Console().print(table)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["languages"]:
            show_languages()
        case ["--scale", scale]:
            show_speed(int(scale))
        case [name, folder, rows]:
            sys.stdout.write(json.dumps(measure(name, Path(folder), int(rows))))
        case _:
            show_speed(1)
