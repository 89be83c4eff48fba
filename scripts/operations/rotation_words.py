"""What scripts/ca tells people of a rotation: what is in the way, what breaks, what is next."""

from __future__ import annotations

from collections.abc import Sequence

from chalicelib.domain.pki.authorities import AuthorityKind
from chalicelib.domain.rotation import Obstacle
from operations.cloud import CommandError


class Words:
    """For one kind of CA of one stage."""

    def __init__(self, kind: AuthorityKind, stage: str) -> None:
        self._kind = kind
        self._stage = stage

    def command(self, step: str, *options: str, kind: bool = True) -> str:
        """The command for that step, to be copied."""
        words = ["scripts/ca", step, *([str(self._kind)] if kind else [])]
        return " ".join([*words, "--stage", self._stage, *options])

    def say_next(self, step: str, *options: str) -> None:
        """Print which command comes next."""
        print(f"next: {self.command(step, *options)}")

    def say(self, obstacles: Sequence[Obstacle]) -> None:
        """Print what is in the way, and of whom."""
        for each in obstacles:
            print("\n".join(_described(each)))

    def after_activation(self) -> None:
        """Print what follows by itself, and what comes next."""
        if self._kind is AuthorityKind.SERVER:
            print("registry hosts renew their certificate within minutes")
        else:
            print("what is renewed comes from it; certificates of the former CA hold on")
        self.say_next("retire")

    def refuse(
        self, left: Sequence[Obstacle], step: str, *, force: bool, people_told: bool = False
    ) -> None:
        """Raises CommandError when anything is in the way; by force prints what that breaks."""
        if not left:
            return
        if force:
            print("by force:")
            for each in left:
                print("\n".join([*_described(each), f"    breaks: {each.breaks}"]))
            return
        said = [f"too early to {step} the {self._kind} CA; nothing was changed"]
        for each in left:
            said += _described(each)
        options = _options(left, people_told) if step == "activate" else ()
        said.append(f"next: {self.command(step, *options)}")
        said.append("or by force (--force), which breaks:")
        said += [f"  {breaks}" for breaks in dict.fromkeys(each.breaks for each in left)]
        raise CommandError("\n".join(said))


def _options(left: Sequence[Obstacle], people_told: bool) -> Sequence[str]:
    """To be given with the next try: people first, then time."""
    hands = people_told or any(not each.passes for each in left)
    waits = any(each.passes for each in left)
    return [*(["--people-told"] if hands else []), *(["--wait 900"] if waits else [])]


def _described(obstacle: Obstacle) -> Sequence[str]:
    return [f"  {obstacle.lacking}", *(f"    {each}" for each in obstacle.details)]
