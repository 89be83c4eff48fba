"""Steps of a story: each a command that a reader can repeat, and what is to be seen of it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from localcloud.terminal import styled

STEP_SECONDS = 120.0


class Unexpected(Exception):
    """What was seen is not what the story says; the message says what was expected."""


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    def succeeded(self) -> Outcome:
        """Itself; raises Unexpected if the command failed."""
        if self.code != 0:
            raise Unexpected("the command should have succeeded")
        return self

    def failed(self, saying: str) -> str:
        """What it wrote, from *saying* on; raises Unexpected if it did not fail saying so."""
        lines = [line for line in (self.out + self.err).splitlines() if saying in line]
        if self.code == 0 or not lines:
            raise Unexpected(f"the command should have failed, saying {saying!r}")
        return lines[0][lines[0].index(saying) :].strip(' "')

    def says(self, *texts: str) -> str:
        """Its output, which holds all of these texts; raises Unexpected if it does not."""
        for text in texts:
            if text not in self.out:
                raise Unexpected(f"the output should hold {text!r}")
        return self.out.strip()


@dataclass(frozen=True)
class Step:
    """One thing that happens.

    command: for sh, in the demo's directory, after the variables were sourced.
    see: takes the outcome, returns what was seen in words; raises Unexpected.
    """

    title: str
    command: str
    see: Callable[[Outcome], str]


@dataclass(frozen=True)
class Story:
    """The steps, and where they happen."""

    steps: Sequence[Step]
    directory: Path
    variables: Path

    def tell(self) -> bool:
        """Do one step after the other, showing each; whether all went as they should.

        Ends at the first that does not, since later steps build on it.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        for number, step in enumerate(self.steps, start=1):
            print(f"\n{styled(f'{number}. {step.title}', 'strong')}")
            print(styled(_as_typed(step.command), "command"), flush=True)
            outcome = self._do(step.command)
            try:
                seen = step.see(outcome)
            except Unexpected as problem:
                _show_failure(outcome, problem)
                return False
            _show("✓", "good", seen)
        return True

    def _do(self, command: str) -> Outcome:
        script = f". '{self.variables}'\n{command}\n"
        try:
            done = subprocess.run(
                ["sh", "-u", "-c", script],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=STEP_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Outcome(124, "", f"no end within {STEP_SECONDS:.0f} s")
        return Outcome(done.returncode, done.stdout, done.stderr)


def _as_typed(command: str) -> str:
    first, *rest = command.splitlines()
    return "\n".join([f"   $ {first}", *(f"     {line}" for line in rest)])


def _show(mark: str, style: str, text: str) -> None:
    first, *rest = text.splitlines() or [""]
    print(f"   {styled(mark, style)} {first}")
    for line in rest:
        print(f"     {line}")


def _show_failure(outcome: Outcome, problem: Unexpected) -> None:
    _show("✗", "bad", str(problem))
    written = (outcome.out + outcome.err).strip() or "nothing"
    _show(" ", "faint", f"it ended with {outcome.code} and wrote:\n{written}")
