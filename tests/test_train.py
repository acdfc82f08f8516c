"""An export trains an embedding model from nothing: its files load and its pairs are aligned.

    pip install torch==2.13.0 "sentence-transformers[train]>=6"   (1.7 GB, so no part of the lock)
pytest -m train
"""

import random
import re
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.servers import ROOT
from tasks.clients import storage
from tests.test_export import FIRST, add, export, rows

pytestmark = [pytest.mark.train, pytest.mark.timeout(600), pytest.mark.filterwarnings("default")]

PAIRS, HELD_OUT = 4_000, 400
CPU_SECONDS = 60


def word(generator: random.Random) -> str:
    return "".join(generator.choice("bdfgklmnprstvz") + generator.choice("aeiou") for _ in range(4))


def meaningful_pairs(count: int) -> tuple[list[str], list[str]]:
    """Return texts that match by the meaning of their words: each word has one partner in the other text."""
    generator = random.Random(1)
    partners = [(word(generator), word(generator)) for _ in range(400)]
    inputs, positives = [], []
    for _ in range(count):
        chosen = generator.sample(partners, 5)
        inputs.append(" ".join(one for one, _ in chosen))
        positives.append(" ".join(other for _, other in generator.sample(chosen, 5)))
    return inputs, positives


@pytest.fixture
def folder(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Export PAIRS pairs into the folder `export` of a working folder of this test's own."""
    inputs, positives = meaningful_pairs(PAIRS)
    add(f"{bucket}/out", rows(FIRST, range(PAIRS), input=inputs, positive_document=positives))
    report = export(f"{bucket}/out", validation_share=0.0)
    for item in storage.list_objects(report.uri):
        path = tmp_path / "export" / item.uri.removeprefix(f"{report.uri}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(storage.read_bytes(item.uri))
    monkeypatch.chdir(tmp_path)
    for name, value in {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "WANDB_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def new_model(texts: list[str]) -> Any:
    """Return a static embedding model that knows the words of `texts` and nothing of their meaning."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    torch.manual_seed(0)
    tokenizer = Tokenizer(models.WordLevel(unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=["?"]))
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=128)], device="cpu")


def recall_at_1(model: Any, held_out: pl.DataFrame) -> float:
    """Return the share of anchors whose own positive is the nearest of all."""
    anchors, positives = (model.encode(held_out[name].to_list(), convert_to_tensor=True) for name in held_out.columns)
    nearest = model.similarity(anchors, positives).argmax(dim=1).tolist()
    hits: int = sum(place == found for place, found in enumerate(nearest))
    return hits / held_out.height


def train(model: Any, pairs: Any) -> None:
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments, losses

    arguments = SentenceTransformerTrainingArguments(
        "trained", num_train_epochs=6, per_device_train_batch_size=128, learning_rate=0.05, report_to="none", seed=1
    )
    loss = losses.MultipleNegativesRankingLoss(model)
    SentenceTransformerTrainer(model, args=arguments, train_dataset=pairs, loss=loss).train()


@pytest.mark.parametrize(("shuffled", "least", "most"), [(False, 0.8, 1.0), (True, 0.0, 0.05)])
def test_a_model_learns_to_match_held_out_pairs_and_nothing_from_shuffled_ones(
    folder: Path, shuffled: bool, least: float, most: float
) -> None:
    from datasets import Dataset, load_dataset

    read = load_dataset("export", "pairs")
    pairs = pl.from_dicts(list(read["train"]))
    held_out = pl.from_dicts(list(read["test"])).head(HELD_OUT)
    assert held_out.height > 200
    if shuffled:
        pairs = pairs.with_columns(pl.col("positive").shuffle(seed=1))
    model = new_model([*pairs["anchor"], *pairs["positive"]])
    before = recall_at_1(model, held_out)
    started = time.process_time()
    train(model, Dataset.from_list(pairs.to_dicts()))
    seconds = time.process_time() - started
    after = recall_at_1(model, held_out)
    sys.stdout.write(
        f"recall@1 of {held_out.height} held-out pairs: {before:.3f} before, {after:.3f} after, {seconds:.0f} s CPU\n"
    )
    assert before < 0.05
    assert least <= after <= most
    assert seconds < CPU_SECONDS


def test_the_lines_of_the_readme_train(folder: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n(from datasets import.*?)```", readme, re.DOTALL)
    assert len([line for line in lines.splitlines() if line.strip()]) == 4
    model = new_model(meaningful_pairs(PAIRS)[0])
    model.save("my-model")
    names: dict[str, Any] = {}
    exec(lines, names)
    texts = meaningful_pairs(10)[0]
    assert (names["model"].encode(texts) != model.encode(texts)).any()
