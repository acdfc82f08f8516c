"""What one attempt at a call came to: a reply or a fault, and the completion that is made of it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, Self

from tasks.clients.concealment import one_line
from tasks.core.price import Price

NOT_REACHED = "No call reached the model ({}). Check the network, and --api-base where you gave one."


@dataclass(frozen=True)
class Reply:
    """One reply that was paid for, good or not; None where the provider said nothing.

    `error` is NO_CHOICES for a reply without a completion. `headers` are the
    response's, names in lower case: rate limits are read from them.
    """

    text: str | None
    finish_reason: str | None
    model_answered: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    error: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, compare=False)

    def at_price(self, price: Price | None) -> Self:
        """Return it with what its tokens cost at a price of our own; as it is where one of the two is unknown."""
        if price is None or self.input_tokens is None or self.output_tokens is None:
            return self
        return replace(self, cost_usd=price.of(self.input_tokens, self.output_tokens))


def no_reply(reason: str) -> Reply:
    """Return what stands for the reply to a request that gets none, for `reason`."""
    return Reply(None, None, None, None, None, None, reason)


def make_completion(reply: Reply, latency_s: float | None, attempts: int, throttled: int) -> dict[str, Any]:
    """Return a reply that arrives now as a row with the columns of COMPLETIONS."""
    return {
        "text": reply.text,
        "finish_reason": reply.finish_reason,
        "model_answered": reply.model_answered,
        "input_tokens": reply.input_tokens,
        "output_tokens": reply.output_tokens,
        "cost_usd": reply.cost_usd,
        "latency_s": latency_s,
        "attempts": attempts,
        "throttled": throttled,
        "error": reply.error,
        "completed_at": datetime.now(UTC),
    }


@dataclass
class CallFault(Exception):  # noqa: N818  (a fault may be no error: throttled)
    """One attempt that brought no reply.

    throttled: wait `retry_after` seconds, does not count as an attempt;
    transient: try again; refused: this request will never be answered, for
    `reason`; fatal: no request will be, `message` says what to set. `billed` says
    that the provider may have counted the call although its reply did not arrive, and
    `unreached` that nobody took the connection.
    """

    kind: Literal["throttled", "transient", "refused", "fatal"]
    message: str
    reason: str = ""
    retry_after: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    billed: bool = False
    unreached: bool = False

    def __post_init__(self) -> None:
        """Keep keys out of the message, whoever wrote it, and line breaks."""
        self.message = one_line(self.message)


Call = Callable[[str], Awaitable[Reply]]
