import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.allowances import LONGEST_SECONDS, RENEWAL_SECONDS, Allowance, read_allowances, read_reset

# 2026-01-01T00:00:00Z
NOW = 1_767_225_600.0

RESETS: list[tuple[str, float | None]] = [
    ("1s", 1.0),
    ("20ms", 0.02),
    ("6m0s", 360.0),
    ("1m30.5s", 90.5),
    ("1h2m3s", 3600.0),
    ("59m", 3540.0),
    ("0s", 0.0),
    ("12", 12.0),
    ("0.5", 0.5),
    ("2026-01-01T00:00:30Z", 30.0),
    ("2026-01-01T01:00:30+01:00", 30.0),
    ("2025-12-31T23:59:00Z", 0.0),
    (str(int(NOW) + 45), 45.0),
    (str((int(NOW) + 45) * 1000), 45.0),
    ("1d", LONGEST_SECONDS),
    ("", None),
    ("soon", None),
    ("1s later", None),
    ("nan", None),
    ("inf", None),
    ("-5", 0.0),
    # Longer than any header, and read in no time.
    ("1" * 500_000, LONGEST_SECONDS),
    ("1." * 500_000, None),
]


@pytest.mark.parametrize(("text", "seconds"), RESETS)
def test_a_reset_is_read_in_every_form(text: str, seconds: float | None) -> None:
    assert read_reset(text, NOW) == seconds


def test_a_reset_without_a_zone_is_in_utc_wherever_the_machine_is(far_from_utc: None) -> None:
    assert read_reset("2026-01-01T00:00:30", NOW) == 30


@given(st.text(max_size=30))
def test_a_reset_is_never_an_error_nor_longer_than_an_hour(text: str) -> None:
    seconds = read_reset(text, NOW)
    assert seconds is None or 0 <= seconds <= LONGEST_SECONDS


HEADERS: dict[str, tuple[dict[str, str], list[Allowance]]] = {
    "openai": (
        {
            "x-ratelimit-limit-requests": "500",
            "x-ratelimit-remaining-requests": "499",
            "x-ratelimit-reset-requests": "120ms",
            "x-ratelimit-limit-tokens": "30000",
            "x-ratelimit-remaining-tokens": "29000",
            "x-ratelimit-reset-tokens": "2s",
        },
        [Allowance("requests", 499, 500, 0.12), Allowance("tokens", 29000, 30000, 2.0)],
    ),
    "anthropic": (
        {
            "anthropic-ratelimit-requests-limit": "50",
            "anthropic-ratelimit-requests-remaining": "0",
            "anthropic-ratelimit-requests-reset": "2026-01-01T00:00:10Z",
            "anthropic-ratelimit-input-tokens-limit": "1000",
            "anthropic-ratelimit-input-tokens-remaining": "900",
            "anthropic-ratelimit-input-tokens-reset": "2026-01-01T00:00:05Z",
            "anthropic-ratelimit-output-tokens-remaining": "70",
        },
        [
            Allowance("requests", 0, 50, 10.0),
            Allowance("input-tokens", 900, 1000, 5.0),
            Allowance("output-tokens", 70, None, RENEWAL_SECONDS),
        ],
    ),
    "one alone": ({"x-ratelimit-remaining-requests": "7"}, [Allowance("requests", 7, None, RENEWAL_SECONDS)]),
    "no number": ({"x-ratelimit-remaining-requests": "many", "x-ratelimit-remaining-tokens": ""}, []),
    "none": ({"content-type": "application/json"}, []),
}


@pytest.mark.parametrize("name", list(HEADERS))
def test_what_is_left_is_read_in_each_spelling(name: str) -> None:
    headers, allowances = HEADERS[name]
    assert list(read_allowances(headers, NOW)) == allowances
