"""What the API answers in JSON about the EC2 instances that enrol themselves.

As in documents.py: the docstrings and descriptions are written for the API's readers.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from chalicelib.domain.enrolment.model import EnrolmentPath, EnrolmentState
from chalicelib.domain.identity import INSTANCE_ID
from chalicelib.domain.model import Access
from chalicelib.entrypoints.http.documents import Arn, Serial, Time

InstanceId = Annotated[
    str,
    Meta(
        pattern=f"^{INSTANCE_ID}$",
        description="EC2's id of it.",
        examples=["i-0123456789abcdef0"],
    ),
]


class Instance(Struct):
    """An EC2 instance, and how far its enrolment has come."""

    instance_id: InstanceId
    state: Annotated[
        EnrolmentState | None,
        Meta(
            description="launched: nothing has been done yet, or it is stopped and was not "
            "enrolled. waiting_for_agent: its SSM agent is not online, or something failed and is "
            "tried again soon. preparing: it makes its key. installing: it installs its "
            "certificate and tries it. enrolled: it works (path says who saw it). failed: it was "
            "given up for now; reason says why and look_at when it is tried again. gone: it was "
            "terminated or lost its tag, and its certificates are revoked. null: it was asked for, "
            "and nobody has looked at it yet."
        ),
    ]
    since: Annotated[Time | None, Meta(description="When it came into this state.")]
    access: Annotated[
        Access | None,
        Meta(
            description="Of the certificate that it has or is being given; when failed, and where "
            "it asks by itself, what its tag says."
        ),
    ]
    path: Annotated[
        EnrolmentPath | None,
        Meta(
            description="agent: by way of its SSM agent, and its certificate was seen to be "
            "admitted from there. boot: it asked for its certificate by itself. null: it has "
            "never been enrolled."
        ),
    ]
    serial: Annotated[Serial | None, Meta(description="Of its certificate; null: it has none.")]
    owners: Annotated[
        list[Arn],
        Meta(
            description="Sessions of its role: its certificates are theirs. Several if it changed."
        ),
    ]
    trust_version: Annotated[
        str | None, Meta(description="The version of GET /trust that it was last given.")
    ]
    enrolled_at: Annotated[
        Time | None,
        Meta(
            description="When its certificate was last seen to be admitted; with path boot, when "
            "it was issued."
        ),
    ]
    launched_at: Annotated[
        Time | None,
        Meta(description="When it had last been started, as it was last enrolled or failed."),
    ]
    renew_at: Annotated[
        Time | None, Meta(description="When the last third of its certificate's life begins.")
    ]
    look_at: Annotated[
        Time | None,
        Meta(
            description="When it is looked at even if nothing happens to it; null: not any more, "
            "or not before somebody asks."
        ),
    ]
    tries: Annotated[int, Meta(description="Commands and looks in the present attempt.", ge=0)]
    failures: Annotated[int, Meta(description="Attempts in a row that failed.", ge=0)]
    code: Annotated[
        str,
        Meta(
            description="What is in its way, or why it failed or is gone, as a stable word; empty: "
            "nothing is."
        ),
    ]
    reason: Annotated[
        str,
        Meta(
            description="The same in words, and what to do about it. It may quote what the "
            "instance printed, which is no more to be trusted than the instance."
        ),
    ]


class InstanceList(Struct):
    """One page of instances."""

    instances: list[Instance]
    next_cursor: Annotated[
        str | None,
        Meta(
            description="Give it as cursor to get the next page; null after the last. A page may "
            "hold fewer instances than asked for, even none, before the last."
        ),
    ]
