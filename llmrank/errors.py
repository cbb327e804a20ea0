"""Every error that llmrank raises, as one tree.

::

    LLMRankError
    ├── InputError (ValueError)       what the caller gave is wrong: field, value and fix are named
    │   ├── ConfigError               a configuration key or value
    │   ├── CatalogError              an item file or item (file and line are named)
    │   ├── UnknownItemError          an item id that the catalogue does not have
    │   ├── RequestError              a history, candidate list or query that cannot be ranked
    │   ├── TemplateError             a template that is missing, does not compile or does not render
    │   ├── BudgetError               a prompt that cannot be made to fit the model's window
    │   └── DatasetError              a data set file that is missing or malformed
    ├── SetupError                    a package, key or file that this machine lacks; the remedy is named
    ├── ClosedError (RuntimeError)     a Ranker is used after it was closed
    ├── CapabilityError               a strategy asks what the backend cannot do
    ├── AnswersPendingError           the answers of a batch are not there yet; the message says what to wait for
    └── BackendError                  a backend did not answer; `retryable` says if asking again may help
        ├── UnreachableError          no connection, or it broke                              (retryable)
        ├── BackendTimeoutError       no answer in time                                       (retryable)
        ├── DeadlineError             the limit on attempts or time is used up
        ├── RateLimitError            429; `retry_after` in seconds, if the server said       (retryable)
        ├── ServerError               5xx, or an answer that is not of the protocol           (retryable)
        ├── QuotaError                the account has no credit left
        ├── AuthenticationError       401: the key is missing or wrong
        ├── PermissionDeniedError     403: the key may not do this
        ├── ModelNotFoundError        404: no such model or path at this address
        ├── BadRequestError           400, 422: the request is refused as it stands
        │   ├── ContextLengthError    the prompt is longer than the window; `window` in tokens, if known
        │   └── ContentFilterError    the provider's filter refused the prompt or the answer
        ├── ConstraintIgnoredError    the server took a decoding constraint and did not obey it
        └── ReplayMissError           the recording has no answer to this prompt

Every message is one line. `exit_status` is what the command line returns for it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Self

from llmrank.usage import Usage


class LLMRankError(Exception):
    """The root of the tree: ``except LLMRankError`` catches all that llmrank raises on purpose."""

    retryable: bool = False
    exit_status: int = 2

    def __init__(self, message: str) -> None:
        # One line, whatever an SDK or a file put into it: command-line users and logs rely on that.
        super().__init__(" ".join(message.split()))


class InputError(LLMRankError, ValueError):
    """Something the caller gave is wrong.

    Args:
        message: What is wrong, in words.
        field: The name of the offending field, key or argument.
        value: The offending value; shown shortened.
        fix: What to do about it.
    """

    def __init__(self, message: str, *, field: str = "", value: object = None, fix: str = "") -> None:
        self.message, self.field, self.value, self.fix = message, field, value, fix
        text = f"{field}: {message}" if field else message
        if value is not None:
            text += f" (got {shorten(value)})"
        if fix:
            text += f"; {fix}"
        super().__init__(text)


class ConfigError(InputError):
    """A configuration key or value is wrong."""


class CatalogError(InputError):
    """An item file, or an item in it, is wrong; the file and the line are in the message."""


class UnknownItemError(InputError):
    """An item id is not in the catalogue."""


class RequestError(InputError):
    """A request cannot be ranked: no candidates, the same candidate twice, nothing left to rank."""


class TemplateError(InputError):
    """A template is missing, does not compile, or does not render."""


class BudgetError(InputError):
    """A prompt cannot be made to fit the model's window without dropping a candidate."""


class DatasetError(InputError):
    """A data set file is missing or malformed; the file and the line are in the message."""


class SetupError(LLMRankError):
    """This machine lacks a package, a key or a file; the message names the remedy."""


class ClosedError(LLMRankError, RuntimeError):
    """A Ranker is used after it was closed."""


class CapabilityError(LLMRankError):
    """A strategy asks a backend for something that it cannot do."""


class AnswersPendingError(LLMRankError):
    """The answers of a batch are not there yet: all is on disk, and running again goes on when they are."""

    exit_status = 1


class BackendError(LLMRankError):
    """A backend did not answer. In a flow it arrives as a value, so that one failure loses no batch.

    Attributes:
        usage: What it took all the same: attempts beyond the first and seconds, where prompts are asked again
            (`backends.retry`). As a rule no calls and no tokens: those count answers.
        spared: What it had taken an equal prompt that was under way at the same time, and whose error this is.
    """

    usage: Usage = Usage()
    spared: Usage = Usage()

    def retold(self, *, usage: Usage, spared: Usage = Usage(), message: str | None = None) -> Self:
        """A new error like this one with another cost: a backend may hand one error to many prompts.

        Args:
            usage: What it took.
            spared: What it had taken another.
            message: The message; None for that of this one.
        """
        told = type(self).__new__(type(self), *(self.args if message is None else (message,)))
        vars(told).update(vars(self), usage=usage, spared=spared)
        return told


class UnreachableError(BackendError):
    """No connection could be made, or it broke before the answer was complete."""

    retryable = True


class BackendTimeoutError(BackendError):
    """No answer came within the time allowed for one attempt."""

    retryable = True


class DeadlineError(BackendError):
    """The attempts or the time allowed for one prompt are used up; `__cause__` is the last error."""


class RateLimitError(BackendError):
    """429: too many requests. `retry_after` is the wait the server asked for, in seconds."""

    retryable = True

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ServerError(BackendError):
    """5xx, or an answer that is not of the protocol. 503 may carry `retry_after`, in seconds."""

    retryable = True

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QuotaError(BackendError):
    """The account has no credit left: asking again does not help."""


class AuthenticationError(BackendError):
    """401: the key is missing or wrong."""


class PermissionDeniedError(BackendError):
    """403: the key may not do this."""


class ModelNotFoundError(BackendError):
    """404: there is no such model, or no such path at this address."""


class BadRequestError(BackendError):
    """400 or 422: the server refuses the request as it stands."""


class ContextLengthError(BadRequestError):
    """The prompt is longer than the model's window (`window`, in tokens, if the server said)."""

    def __init__(self, message: str, *, window: int | None = None) -> None:
        super().__init__(message)
        self.window = window


class ContentFilterError(BadRequestError):
    """The provider's content filter refused the prompt or the answer."""


class ConstraintIgnoredError(BackendError):
    """The server accepted a decoding constraint and did not obey it (an old vLLM, a proxy)."""


class ReplayMissError(BackendError):
    """The recording holds no answer to this prompt."""


def shorten(value: object, limit: int = 80) -> str:
    """`repr(value)` in at most `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint ``did you mean 'x'?`` for a mistyped name, or the known names if none is near."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"known: {shown}"
