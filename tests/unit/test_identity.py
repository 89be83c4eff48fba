"""Who a caller is, from an ARN; whatever is not surely a user or a session is nobody."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chalicelib.domain.identity import identify
from chalicelib.domain.model import Caller
from chalicelib.errors import Forbidden

USER = "arn:aws:iam::123456789012:user/ann"
SESSION = "arn:aws:sts::123456789012:assumed-role/deploy/ann@example.com"
PARTITIONS = ["aws", "aws-cn", "aws-us-gov"]
NAMES = st.text(string.ascii_letters + string.digits + "_+=,.@-", min_size=1, max_size=64)


@pytest.mark.parametrize("partition", PARTITIONS)
def test_a_user_is_known_by_its_name_in_every_partition(partition: str) -> None:
    arn = USER.replace("arn:aws:", f"arn:{partition}:")
    assert identify(arn) == Caller(arn=arn, name="ann", role=None, instance_id=None)


@pytest.mark.parametrize("partition", PARTITIONS)
def test_a_session_is_known_by_its_name_and_role_in_every_partition(partition: str) -> None:
    arn = SESSION.replace("arn:aws:", f"arn:{partition}:")
    assert identify(arn) == Caller(arn=arn, name="ann@example.com", role="deploy")


@pytest.mark.parametrize("path", ["team/", "a/b/c/", "{|}~/", "user/", "assumed-role/"])
def test_a_users_path_is_not_part_of_the_name_but_of_the_owner(path: str) -> None:
    arn = f"arn:aws:iam::123456789012:user/{path}ann"
    assert identify(arn) == Caller(arn=arn, name="ann")


@pytest.mark.parametrize("name", ["i-0123abcd", "i-0123456789abcdef0"])
def test_a_session_named_like_an_instance_claims_to_be_it(name: str) -> None:
    caller = identify(f"arn:aws:sts::123456789012:assumed-role/docker-instance/{name}")
    assert (caller.instance_id, caller.name, caller.role) == (name, name, "docker-instance")


@pytest.mark.parametrize(
    "name", ["i-0123ABCD", "i-0123abc", "i-0123456789abcdef01", "i-0123abcd-x", "xi-0123abcd", "i-"]
)
def test_a_session_named_nearly_like_an_instance_is_an_ordinary_one(name: str) -> None:
    caller = identify(f"arn:aws:sts::123456789012:assumed-role/docker-instance/{name}")
    assert caller.instance_id is None


def test_a_user_named_like_an_instance_is_a_user() -> None:
    assert identify("arn:aws:iam::123456789012:user/i-0123abcd").instance_id is None


STRANGERS = {
    "nobody": "",
    "the account's root": "arn:aws:iam::123456789012:root",
    "a federated user": "arn:aws:sts::123456789012:federated-user/ann",
    "a role": "arn:aws:iam::123456789012:role/deploy",
    "a group": "arn:aws:iam::123456789012:group/team",
    "a service": "ec2.amazonaws.com",
    "a user of STS": USER.replace("iam", "sts"),
    "a session of IAM": SESSION.replace("sts", "iam"),
    "a session without a name": "arn:aws:sts::123456789012:assumed-role/deploy",
    "a session with an empty name": "arn:aws:sts::123456789012:assumed-role/deploy/",
    "a session below a session": SESSION + "/more",
    "a user without a name": "arn:aws:iam::123456789012:user/",
    "a path without a name": "arn:aws:iam::123456789012:user/team/",
    "an account of 11 digits": USER.replace("123456789012", "12345678901"),
    "an account of other digits": USER.replace("123456789012", "\u0661" * 12),
    "another cloud": USER.replace("arn:aws", "arn:gcp"),
    "a region in it": USER.replace("iam::", "iam:us-east-1:"),
    "a name of 65 characters": USER.replace("ann", "a" * 65),
    "a line break after": USER + "\n",
    "a line break before": "\n" + USER,
    "a line break in the path": USER.replace("ann", "te\nam/ann"),
    "a space in the name": USER + " b",
    "a name with a letter beyond ASCII": USER.replace("ann", "änn"),
    "capitals": USER.upper(),
}


@pytest.mark.parametrize("arn", STRANGERS.values(), ids=STRANGERS)
def test_everybody_else_is_refused(arn: str) -> None:
    with pytest.raises(Forbidden) as caught:
        identify(arn)
    assert caught.value.code == "unrecognised_caller"
    assert not arn or arn not in str(caught.value)


@pytest.mark.parametrize("character", list("\"'\\;:*?$`<>|&(){}[]!#%^~ \t\n\r\0\u202e\u00e9/"))
def test_a_hostile_character_is_never_part_of_a_name(character: str) -> None:
    """Names end up in subjects, logs, file names and shell scripts."""
    for arn in (USER, SESSION):
        try:
            assert character not in identify(arn.replace("ann", f"a{character}b")).name
        except Forbidden:
            continue
        assert character == "/"  # a user's path: what follows it is the name


@given(NAMES)
@settings(max_examples=60)
def test_every_name_that_aws_allows_is_read_whole(name: str) -> None:
    assert identify(f"arn:aws:iam::123456789012:user/{name}").name == name
    assert identify(f"arn:aws:iam::123456789012:user/x/{name}").name == name
    caller = identify(f"arn:aws:sts::123456789012:assumed-role/{name}/{name}")
    assert (caller.role, caller.name) == (name, name)


@given(st.text(max_size=40))
@example("arn:aws:iam::123456789012:user/")
@settings(max_examples=150)
def test_random_text_is_nobody_or_a_name_that_ends_it(text: str) -> None:
    for arn in (text, USER[:-3] + text, SESSION[: SESSION.rindex("/") + 1] + text):
        try:
            caller = identify(arn)
        except Forbidden:
            continue
        assert caller.arn == arn
        assert arn.endswith("/" + caller.name)
        assert 1 <= len(caller.name) <= 64
        assert caller.name.isascii()
        assert caller.name.isprintable()
