"""docs/enrolment.md tells people what each code of an enrolment means, and invents none."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from chalicelib.domain.instance_host import InstallResult
from chalicelib.entrypoints.http import codes
from tests.unit.test_openapi import BEHIND_THE_SCENES, constant_in, constants_of, raised

CHECKOUT = Path(__file__).parents[2]
WRITERS = {"again": 2, "failed": 2, "_retired": 2}  # where in their arguments the code stands


def written() -> Iterator[str]:
    """Each code that is recorded with an enrolment and is no error's."""
    yield from (result.value for result in InstallResult if result is not InstallResult.WORKS)
    modules = [
        ast.parse(file.read_text())
        for package in ("domain/enrolment", "services/enrolling")
        for file in (CHECKOUT / "chalicelib" / package).glob("*.py")
    ]
    constants = {name: code for each in modules for name, code in constants_of(each).items()}
    for node in (node for each in modules for node in ast.walk(each)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            place = WRITERS.get(node.func.id)
            if place and (code := constant_in(node.args[place], constants)):
                yield code


def documented() -> set[str]:
    """As the page has them, some of them for many: csr_…"""
    page = (CHECKOUT / "docs" / "enrolment.md").read_text()
    table = page.partition("\n## Codes\n")[2].partition("\n## ")[0]
    rows = re.findall(r"(?m)^\| (`[^|]*`) \|", table)
    return {code for row in rows for code in re.findall(r"`([^`]+)`", row)}


def test_each_code_that_is_recorded_is_on_the_page() -> None:
    found = set(written())
    assert {"no_agent", "terminated", "needs_key", "certificate_revoked"} <= found
    assert found <= documented()


def test_each_code_on_the_page_is_one_that_may_be_recorded() -> None:
    known = {*written(), *BEHIND_THE_SCENES, *codes.MEANINGS, *(code for _, code in raised())}
    for code in documented():
        pattern = re.escape(code).replace("…", ".*")
        assert any(re.fullmatch(pattern, each) for each in known), code


def test_what_only_instances_meet_is_on_the_page_and_not_left_to_the_api() -> None:
    asked = {"agent_offline", "command_not_sent", "ssm_unreadable", "no_instance_profile", "no_csr"}
    assert asked <= documented()
    assert asked <= BEHIND_THE_SCENES
