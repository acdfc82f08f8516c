"""Parameters that several flows share: each is defined here, once.

Prefect's form and the command line take bounds and choices from these types,
descriptions from the flow's docstring.
"""

from typing import Annotated

from pydantic import Field

from tasks.core.naming import LanguageName

DAY, NAME = r"^(\d{4}-\d{2}-\d{2})?$", r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63})?$"
# What is asked for by the two, for those who do not read patterns.
SHAPES = {
    DAY: "Write a day as YYYY-MM-DD",
    NAME: "Write at most 64 letters, digits, dots, dashes and underscores, a letter or digit first",
}

Day = Annotated[str, Field(pattern=DAY)]
Name = Annotated[str, Field(pattern=NAME)]
Languages = list[LanguageName]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Descriptions = Annotated[int, Field(ge=1, le=100_000)]
PairsPerTask = Annotated[int, Field(ge=1, le=100)]
Attempts = Annotated[int, Field(ge=1, le=20)]
Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(gt=0, le=1)]
MaxTokens = Annotated[int, Field(ge=16, le=32_768)]
Concurrency = Annotated[int, Field(ge=1, le=4096)]
MaxParallel = Annotated[int, Field(ge=1, le=64)]
Days = Annotated[int, Field(ge=0, le=36_500)]
Hours = Annotated[int, Field(ge=0, le=168)]
