"""What tokens cost."""

from typing import NamedTuple


class Price(NamedTuple):
    """US dollars a token."""

    input: float
    output: float

    def of(self, input_tokens: float, output_tokens: float) -> float:
        """Return what that many tokens cost."""
        return input_tokens * self.input + output_tokens * self.output

    def times(self, share: float) -> "Price":
        """Return the price times `share`."""
        return Price(self.input * share, self.output * share)
