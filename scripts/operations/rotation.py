"""Replace a CA in steps, each of which may be broken off and run again: what is done in what order.

The key is there before its CA is named, the CA is named before it is published, and a key goes when
nobody names its CA any more and every process knows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import boto3

from chalicelib.adapters.parameters import AUTHORITIES_KEPT
from chalicelib.domain import rotation
from chalicelib.domain.pki.authorities import Authority, AuthorityKind
from chalicelib.domain.pki.authority_set import AuthoritySet
from chalicelib.domain.pki.leaves import certificate_pem
from chalicelib.domain.rotation import Facts, Obstacle
from operations import authorities
from operations.ca_parameters import CaParameters, StoredSet
from operations.cloud import CommandError
from operations.coverage import Coverage
from operations.rotation_words import Words

_POLL_SECONDS = 5.0
_SAID_SECONDS = 60.0

# A key that is older and of no CA that is named was left by a run that was broken off.
_UNNAMED = timedelta(hours=1)

# A CA that is younger was made by the run before this one, which was broken off.
_SAME_DISTRUST = timedelta(hours=1)


_Rule = Callable[[Facts], Sequence[Obstacle]]


class Clock:
    """The time, and waiting."""

    def now(self) -> datetime:
        """Aware UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds from some moment on, whatever is done to the clock."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class Rotation:
    """Of one kind of CA of one stage. Tells people on standard output what it does.

    make: a CA with a key of that type. publish: has what the parameters say published.
    """

    def __init__(
        self,
        kind: AuthorityKind,
        stage: str,
        parameters: CaParameters,
        coverage: Coverage,
        make: Callable[[str], Authority],
        publish: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._kind = kind
        self._words = Words(kind, stage)
        self._parameters = parameters
        self._coverage = coverage
        self._make = make
        self._publish_trust = publish
        self._clock = clock
        self._settled_at: float | None = None  # by the clock's monotonic(); of what this run wrote

    @classmethod
    def of(
        cls, aws: boto3.Session, outputs: dict[str, str], stage: str, kind: AuthorityKind
    ) -> Rotation:
        """On the deployed stack that says this of itself."""
        return cls(
            kind,
            stage,
            CaParameters(aws, outputs, kind),
            Coverage(aws, outputs),
            make=lambda key_type: authorities.make(kind, key_type, outputs["RegistryHost"]),
            publish=lambda: authorities.publish(aws, outputs),
            clock=Clock(),
        )

    # --- the steps

    def rotate(self, key_type: str) -> None:
        """Have a new CA trusted, which does not sign yet. Raises CommandError."""
        stored = self._parameters.read()
        known = stored.known
        if known.pending and not self._is_published(known):
            print(f"the {self._kind} CA {known.pending[0]} is made, but was not published")
            self._publish(known)
            self._words.say_next("activate", "--wait 900")
            return
        if why := rotation.against_rotating(known):
            step = "activate" if known.pending else "retire"
            raise CommandError(f"{why}; next: {self._words.command(step)}")
        id_ = self._add(key_type, stored)
        print(f"the {self._kind} CA {id_} is made: trusted from now on, it signs nothing yet")
        print("registry hosts take it up within a minute, enrolled instances within minutes")
        self._words.say_next("activate", "--wait 900")

    def activate(self, wait: float, *, force: bool, people_told: bool) -> None:
        """Have the new CA sign, once everybody trusts it. wait: seconds. Raises CommandError."""
        stored = self._parameters.read()
        known = stored.known
        if not known.pending:
            self._active_already(known)
            return
        new = known.pending[0]
        if not self._is_published(known):
            self._publish(known)
        made = rotation.made_at(known.certificates[new])

        def obstacles(facts: Facts) -> Sequence[Obstacle]:
            return rotation.against_activating(
                self._kind, new, made, facts, people_told=people_told
            )

        left = self._wait_for(new, obstacles, wait)
        self._words.refuse(left, "activate", force=force, people_told=people_told)
        self._need_key(new)
        activated = known.activated(new)
        self._replace(stored, activated)
        print(f"the {self._kind} CA {new} signs from now on")
        self._publish(activated)
        self._settle()
        self._words.after_activation()

    def retire(self, *, force: bool) -> None:
        """Trust the former CA no more, once nothing lives under it. Raises CommandError."""
        stored = self._parameters.read()
        known = stored.known
        if not known.former:
            self._nothing_to_retire(known)
            return
        old, facts = known.former[0], self._coverage.facts()
        settled = stored.changed_at + AUTHORITIES_KEPT
        left = rotation.against_retiring(self._kind, old, known.active, facts, settled)
        self._words.refuse(left, "retire", force=force)
        self._drop(stored, old, keep_key=bool(left))

    def abandon(self) -> None:
        """Take a new CA back that was never activated. Raises CommandError."""
        stored = self._parameters.read()
        known = stored.known
        if not known.pending:
            self._finish(known)
            print(f"nothing to take back: no {self._kind} CA waits to be activated")
            return
        self._drop(stored, known.pending[0], keep_key=False)

    def distrust(self, key_type: str, wait: float, *, again: bool) -> None:
        """Have a new CA be the only one, at once. wait: seconds. Raises CommandError."""
        stored = self._parameters.read()
        known = stored.known
        if again or not self._goes_on(stored):
            gone = list(known.certificates)
            self._add(key_type, stored, alone=True)
            known = self._parameters.read().known
            for id_ in gone:
                print(f"the {self._kind} CA {id_} is not trusted any more")
        else:
            print(f"{known.active} was made less than an hour ago and is the only {self._kind} CA;")
            print("going on with it: to replace that one, too, say --again")
        if not self._is_published(known):
            self._publish(known)
        print(f"the {self._kind} CA {known.active} signs, and is the only one")
        self._follow(known, wait)
        self._say_left_keys(known)

    def describe(self) -> None:
        """Print how far a rotation has come, and what to do next; nothing when there is none."""
        known = self._parameters.read().known
        if not self._is_published(known):
            publish = self._words.command("publish", kind=False)
            print(f"{self._kind:<7} not published as it is: {publish}")
        if known.pending:
            self._describe_pending(known)
        elif known.former:
            print(f"{self._kind:<7} next: {self._words.command('retire')}")
        self._say_left_keys(known)

    # --- their parts

    def _add(self, key_type: str, stored: StoredSet, *, alone: bool = False) -> str:
        """Make a CA, trusted beside the others, or alone and signing; published. Its id."""
        made = self._make(key_type)
        pem = certificate_pem(made.certificate)
        with_it = stored.known.with_trusted(made.id, pem)
        if alone:
            with_it = AuthoritySet(made.id, {made.id: pem})
        self._parameters.add_key(made)
        try:
            self._replace(stored, with_it)
        except CommandError:
            if made.id not in self._parameters.read().known.certificates:
                self._parameters.delete_key(made.id)
            raise
        self._parameters.add_key(made)  # while nobody named it, another may have tidied it away
        self._publish(with_it)
        return made.id

    def _drop(self, stored: StoredSet, id_: str, *, keep_key: bool) -> None:
        known = stored.known.without(id_)
        self._replace(stored, known)
        print(f"the {self._kind} CA {id_} is not trusted any more")
        self._publish(known)
        if keep_key:
            self._say_left_keys(known)
            return
        self._settle()
        self._parameters.delete_key(id_)
        print(f"its key is deleted: {self._parameters.key_parameter(id_)}")

    def _replace(self, stored: StoredSet, by: AuthoritySet) -> None:
        self._parameters.expect(stored.known)
        self._parameters.replace(stored, by)
        self._settled_at = self._clock.monotonic() + AUTHORITIES_KEPT.total_seconds()

    def _publish(self, known: AuthoritySet) -> None:
        self._publish_trust()
        self._parameters.expect(known)
        print("published the trust", flush=True)

    def _is_published(self, known: AuthoritySet) -> bool:
        """Whether the published trust names these CAs, the one that signs first."""
        return list(self._coverage.published(self._kind)) == list(known.ids)

    def _settle(self) -> None:
        """Wait until every process knows what was written last, be it by a run before this one."""
        if self._settled_at is None:
            age = self._clock.now() - self._parameters.read().changed_at
            wait = min(AUTHORITIES_KEPT, AUTHORITIES_KEPT - age).total_seconds()
        else:
            wait = self._settled_at - self._clock.monotonic()
        if wait > 0:
            print(f"waiting {wait:.0f} s until every function knows", flush=True)
            self._clock.sleep(wait)

    def _need_key(self, id_: str) -> None:
        """Without it nothing could be signed, which no force makes good."""
        if not self._parameters.has_key(id_):
            raise CommandError(
                f"the key of CA {id_} is not there, so it cannot sign. Put it back from a backup: "
                "scripts/ca restore; or take the CA back and make another: "
                f"{self._words.command('retire', '--abandon')}"
            )

    def _active_already(self, known: AuthoritySet) -> None:
        print(f"the {self._kind} CA {known.active} signs already; none waits to be activated")
        if not self._is_published(known):
            self._publish(known)
        self._settle()
        if known.former:
            self._words.after_activation()

    def _nothing_to_retire(self, known: AuthoritySet) -> None:
        self._finish(known)
        if known.pending:
            raise CommandError(
                f"CA {known.pending[0]} is not yet activated, so {known.active} cannot be retired;"
                f" next: {self._words.command('activate')}, or, to take the new one back: "
                f"{self._words.command('retire', '--abandon')}"
            )
        print(f"nothing to retire: {known.active} is the only {self._kind} CA")

    def _finish(self, known: AuthoritySet) -> None:
        """What a run that was broken off may have left: an old trust, and a key of no use."""
        if not self._is_published(known):
            self._publish(known)
        if not self._parameters.left_keys(known):
            return
        self._settle()
        facts = self._coverage.facts()
        # Another operator's new CA has its key before it is named; and by now it may be.
        now_known = self._parameters.read().known
        for id_ in self._parameters.left_keys(now_known, self._clock.now() - _UNNAMED):
            if not rotation.lives_under(self._kind, id_, facts):
                self._parameters.delete_key(id_)
                print(f"deleted a key of no use any more: {self._parameters.key_parameter(id_)}")
        self._say_left_keys(known)

    def _wait_for(self, new: str, obstacles: _Rule, wait: float) -> Sequence[Obstacle]:
        """What is still in the way then; tells how far it has come whenever that changes."""
        end, said, said_at = self._clock.monotonic() + wait, "", 0.0
        while True:
            began = self._clock.monotonic()
            facts = self._coverage.facts()
            left = obstacles(facts)
            line, now = rotation.progress(self._kind, new, facts), self._clock.monotonic()
            if line != said or now > said_at + _SAID_SECONDS:
                print(f"trust in {new}: {line}", flush=True)
                said, said_at = line, now
            if not any(each.passes for each in left) or now >= end:
                return left
            pause = max(_POLL_SECONDS, 2 * (now - began))  # of a large fleet a look takes long
            self._clock.sleep(min(pause, max(0.0, end - now)))

    def _follow(self, known: AuthoritySet, wait: float) -> None:
        """How far the new CA has come, until everybody is with it who needs nobody's hand."""
        made = rotation.made_at(known.certificates[known.active])

        def behind(facts: Facts) -> Sequence[Obstacle]:
            return rotation.after_distrusting(self._kind, known.active, made, facts)

        left = self._wait_for(known.active, behind, wait)
        self._words.say(left)
        if not left:
            print("everybody is with it")
        elif any(each.passes for each in left):
            again = self._words.command("distrust", "--yes --wait 900")
            print(f"next, to see how far it has come: {again}")
        else:
            print("all that comes by itself is there; what is listed needs somebody's hand")

    def _describe_pending(self, known: AuthoritySet) -> None:
        new, facts = known.pending[0], self._coverage.facts()
        print(f"{self._kind:<7} trust in {new}: {rotation.progress(self._kind, new, facts)}")
        made = rotation.made_at(known.certificates[new])
        self._words.say(
            rotation.against_activating(self._kind, new, made, facts, people_told=False)
        )
        print(f"{self._kind:<7} next: {self._words.command('activate', '--wait 900')}")

    def _goes_on(self, stored: StoredSet) -> bool:
        """Whether the only CA is new, and took another's place: that is what distrusting makes."""
        known = stored.known
        made = rotation.made_at(known.certificates[known.active])
        replaced = len(known.certificates) == 1 and stored.version > 1
        return replaced and self._clock.now() < made + _SAME_DISTRUST

    def _say_left_keys(self, known: AuthoritySet) -> None:
        for id_ in self._parameters.left_keys(known):
            name = self._parameters.key_parameter(id_)
            print(f"there is still the key of {id_}, which is not trusted; once it is of no use:")
            print(f"  aws ssm delete-parameter --name {name}")
