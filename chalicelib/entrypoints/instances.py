"""The EC2 instances that enrol themselves, for admins."""

from __future__ import annotations

from chalicelib import bootstrap
from chalicelib.entrypoints.http import answers, bodies, codes, instance_documents
from chalicelib.entrypoints.http.asked import Asked
from chalicelib.entrypoints.http.blueprint import Answer, ApiBlueprint
from chalicelib.entrypoints.http.operations import NO_BODY, Answers, Nothing, Operation
from chalicelib.entrypoints.http.parameters import InstanceListing

blueprint = ApiBlueprint(__name__)


@blueprint.route(
    "/admin/instances",
    Operation(
        method="GET",
        query=InstanceListing,
        accepts=NO_BODY,
        successes={
            200: Answers(description="One page of them.", document=instance_documents.InstanceList)
        },
        problems=codes.LISTING_INSTANCES,
    ),
)
def list_instances(asked: Asked[InstanceListing, Nothing]) -> Answer:
    """List the EC2 instances that enrol themselves.

    One state after the other, and in each the one that came into it last comes first.
    """
    given = asked.query
    page = bootstrap.services().fleet.page(given.wanted, given.limit, given.start)
    return answers.instances_answer(page)


@blueprint.route(
    "/admin/instances/{instance_id}",
    Operation(
        method="GET",
        query=Nothing,
        accepts=NO_BODY,
        successes={200: Answers(description="It.", document=instance_documents.Instance)},
        problems=codes.ENROLMENTS,
    ),
)
def get_instance(asked: Asked[Nothing, Nothing]) -> Answer:
    """Look up how far an instance's enrolment has come.

    An instance is known from the first look at it on, until 30 days after it is gone.
    """
    return answers.instance_answer(bootstrap.services().fleet.look_up(asked.instance_id))


@blueprint.route(
    "/admin/instances/{instance_id}/enrol",
    Operation(
        method="POST",
        query=Nothing,
        accepts=bodies.ENROL,
        successes={
            202: Answers(
                description="It is asked for. This is what is known of it so far; ask again for "
                "what becomes of it.",
                document=instance_documents.Instance,
            )
        },
        problems=codes.ENROLLING,
    ),
)
def enrol_instance(asked: Asked[Nothing, bodies.EnrolBody]) -> Answer:
    """Have an instance enrolled afresh, whatever state it is in.

    It has to carry the tag, as all that enrol themselves. One whose certificate an admin revoked
    enrols no more by itself: this has it make a new key, and gives it a certificate again.
    """
    _ = asked.body
    instance_id = asked.instance_id
    known = bootstrap.services().asking.enrol(instance_id)
    return answers.enrolling_answer(instance_id, known)
