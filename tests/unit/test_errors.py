"""Every error we raise on purpose has its answer."""

from __future__ import annotations

import pytest

from chalicelib.entrypoints.http.problems import STATUS_OF, problem
from chalicelib.errors import AppError, InvalidRequest


def descendants(kind: type[AppError]) -> set[type[AppError]]:
    return {each for child in kind.__subclasses__() for each in {child} | descendants(child)}


def test_every_error_has_a_status_and_nothing_else_has_one() -> None:
    assert set(STATUS_OF) == descendants(AppError)


def test_errors_are_one_level_deep() -> None:
    assert descendants(AppError) == set(AppError.__subclasses__())


@pytest.mark.parametrize("status", sorted(set(STATUS_OF.values())))
def test_every_status_has_a_title_of_its_own(status: int) -> None:
    titles = [problem(each, "c", "d").title for each in set(STATUS_OF.values())]
    assert titles.count(problem(status, "c", "d").title) == 1


@pytest.mark.parametrize(("kind", "status"), STATUS_OF.items())
def test_faults_of_the_caller_are_4xx_and_ours_5xx(kind: type[AppError], status: int) -> None:
    ours = {"Misconfigured", "DependencyFailed", "Contended"}
    assert (status >= 500) == (kind.__name__ in ours)


def test_an_error_carries_its_code_and_the_field_to_blame() -> None:
    error = InvalidRequest("rsa_key_size", "make a longer one", field="csr")
    assert (str(error), error.code, error.field) == ("make a longer one", "rsa_key_size", "csr")
    assert InvalidRequest("a", "b").field is None
