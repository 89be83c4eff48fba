"""Machine images of the local cloud, by the ids that RunInstances is given.

An instance of any other image is a record and a metadata service, with no machine behind it.
"""

WITH_AGENT = "ami-0a9e47000000a9e47"  # a sandbox whose SSM agent comes Online by itself
WITHOUT_AGENT = "ami-0b00700000000b007"  # a sandbox that runs its user data when it first boots
SANDBOXES = frozenset({WITH_AGENT, WITHOUT_AGENT})
BARE = "ami-00000000"
