"""What runs by the clock."""

from __future__ import annotations

from chalice import Blueprint
from chalice.app import CloudWatchEvent

from chalicelib import bootstrap

blueprint = Blueprint(__name__)

# EventBridge's own source of scheduled events (AWS "Using events from AWS services"); operators
# invoke the function with another, and then it does not ask whether it is time to.
_CLOCK = "aws.events"


@blueprint.schedule("rate(5 minutes)")
def refresh_crl(event: CloudWatchEvent) -> dict[str, int | None]:
    """Publish the trust with fresh revocation lists, if it is time to or one lacks a revocation.

    Answers the number of the lists published, or null. Lets every error out: Lambda tries twice
    more, the next run comes soon, and the lists hold for days.
    """
    trust = bootstrap.services().trust
    published = trust.keep() if event.source == _CLOCK else trust.refresh()
    return {"crl_number": None if published is None else published.crl_number}


@blueprint.schedule("rate(1 minute)")
def reconcile_instances(event: CloudWatchEvent) -> dict[str, int]:
    """Ask for the advances that are due, and for those that no event asked for.

    Answers how many. Once an hour, and for operators, who invoke it with another source, all
    instances are compared with their records. Lets every error out: the next run comes soon.
    """
    everything = event.source != _CLOCK or event.time[14:16] == "00"
    return {"asked": bootstrap.services().reconciling.reconcile(everything=everything)}
