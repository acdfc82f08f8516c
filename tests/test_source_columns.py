import polars as pl
import pytest

from tasks.core.columns import OURS
from tasks.core.errors import SchemaError
from tasks.core.source_columns import fit_source_columns, source_names, spell_columns, storable


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        (["id", "task"], {"id": "id"}),
        (["input"], {"input": "input_source"}),
        (["Input"], {"Input": "Input_source"}),
        (
            ["model_name", "model_name_source"],
            {"model_name": "model_name_source", "model_name_source": "model_name_source_source"},
        ),
        (["language"], {}),
        (["id", "ID"], {"id": "id", "ID": "ID_source"}),
        ([], {}),
    ],
)
def test_a_source_column_never_takes_a_name_of_ours(columns: list[str], names: dict[str, str]) -> None:
    assert source_names(columns) == names


def test_every_column_of_ours_is_moved_aside() -> None:
    aside = OURS - {"task", "language"}
    assert source_names(sorted(aside)) == {name: f"{name}_source" for name in aside}


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        (pl.UInt64, pl.Int64()),
        (pl.UInt8(), pl.Int64()),
        (pl.Null, pl.String()),
        (pl.Categorical(), pl.String()),
        (pl.Datetime("ns", "UTC"), pl.Datetime("us", "UTC")),
        (pl.Int32, pl.Int32()),
        (pl.List(pl.Null), pl.List(pl.String)),
        (pl.Array(pl.UInt8, 2), pl.List(pl.Int64)),
        (pl.Struct({"a": pl.Null}), pl.Struct({"a": pl.String})),
    ],
)
def test_a_type_that_delta_cannot_store_has_one_that_it_can(dtype: pl.DataType, stored: pl.DataType) -> None:
    assert storable(dtype) == stored


FITS = [
    (pl.Int64(), None, pl.Int64()),
    (pl.UInt64(), None, pl.Int64()),
    (pl.Null(), pl.Float64(), pl.Float64()),
    (pl.Int64(), pl.Float64(), pl.Float64()),
    (pl.Int32(), pl.Int64(), pl.Int64()),
    (pl.UInt64(), pl.Int64(), pl.Int64()),
    (pl.String(), pl.String(), pl.String()),
    (pl.List(pl.Null), pl.List(pl.Int64), pl.List(pl.Int64)),
    (pl.Struct({"a": pl.Null}), pl.Struct({"a": pl.Int64}), pl.Struct({"a": pl.Int64})),
    (
        pl.List(pl.Struct({"a": pl.Int64, "b": pl.List(pl.Null)})),
        pl.List(pl.Struct({"a": pl.Float64, "b": pl.List(pl.String)})),
        pl.List(pl.Struct({"a": pl.Float64, "b": pl.List(pl.String)})),
    ),
]
CLASHES = [
    (pl.String(), pl.Int64()),
    (pl.Float64(), pl.Int64()),
    (pl.Int64(), pl.String()),
    (pl.List(pl.Int64), pl.List(pl.String)),
    (pl.Struct({"a": pl.Int64}), pl.Struct({"a": pl.Int64, "b": pl.Int64})),
    (pl.Struct({"a": pl.Int64}), pl.Struct({"b": pl.Int64})),
]


@pytest.mark.parametrize(("dtype", "published", "stored"), FITS)
def test_a_column_takes_the_type_it_is_published_with(
    dtype: pl.DataType, published: pl.DataType | None, stored: pl.DataType
) -> None:
    known = {"x": published} if published is not None else {}
    assert fit_source_columns({"x": dtype}, known, "s3://b/pairs") == {"x": stored}
    assert pl.Series([None], dtype=dtype).cast(stored).dtype == stored


@pytest.mark.parametrize(("dtype", "published"), CLASHES)
def test_a_type_clash_names_the_column_and_both_types(dtype: pl.DataType, published: pl.DataType) -> None:
    with pytest.raises(SchemaError) as caught:
        fit_source_columns({"x": dtype}, {"x": published}, "s3://b/pairs")
    assert all(part in str(caught.value) for part in ("'x'", str(dtype), str(published), "s3://b/pairs"))


def test_a_column_is_published_by_the_spelling_that_it_has_already() -> None:
    spelled = spell_columns(["Note", "new", "id", "Größe"], ["note", "id", "task", "grösse"])
    assert spelled == {"Note": "note", "new": "new", "id": "id", "Größe": "grösse"}


@pytest.mark.parametrize("published", [[], ["note"], ["NOTE"]])
def test_two_spellings_of_one_column_in_a_source_are_refused(published: list[str]) -> None:
    with pytest.raises(SchemaError, match="'note' and 'Note'"):
        spell_columns(["note", "Note"], published)


@pytest.mark.parametrize("name", ["*", "^.*$", "^t.*$", "^$"])
def test_a_column_that_polars_would_take_for_several_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(SchemaError) as caught:
        source_names(["task", name], "s3://b/a.csv")
    assert all(part in str(caught.value) for part in ("s3://b/a.csv", repr(name), "Rename"))


@pytest.mark.parametrize("name", ["**", "a*", "^", "$", "^a", "a$", ""])
def test_a_column_whose_name_is_only_odd_is_kept(name: str) -> None:
    assert source_names(["task", name], "s3://b/a.csv") == {name: name}
    assert pl.DataFrame({"task": [1], name: [2]}).select("task", pl.col(name)).columns == ["task", name]
