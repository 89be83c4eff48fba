"""Every error we raise on purpose. Their texts are shown to callers: no paths, ARNs or keys."""

from __future__ import annotations


class AppError(Exception):
    """Base of all of them.

    code: a stable snake_case word that programs may act on.
    field: the one request field to blame, if there is one.
    """

    def __init__(self, code: str, detail: str, *, field: str | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.field = field


class InvalidRequest(AppError):
    """The request, or one field of it, is malformed or against the rules."""


class Forbidden(AppError):
    """The caller is known, but may not have this."""


class NotFound(AppError):
    """It does not exist, or is not the caller's: the two are told apart to nobody."""


class NotAcceptable(AppError):
    """None of the forms the caller accepts can be made."""


class UnsupportedMediaType(AppError):
    """The body is of a type we do not read."""


class Conflict(AppError):
    """The request contradicts what is already recorded."""


class Contended(AppError):
    """Another request got there first; the same request, made again, may succeed."""


class QuotaExceeded(AppError):
    """The owner holds as many active certificates as one owner may."""


class DependencyFailed(AppError):
    """Something we rely on did not answer, or not in time; asking again may succeed."""


class Misconfigured(AppError):
    """The deployment is incomplete: an operator has to act, no retry will help."""
