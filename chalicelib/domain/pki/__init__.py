"""X.509: keys, requests, leaves, authorities and revocation lists; building and reading.

What may be issued to whom is not decided here; see chalicelib.domain.policy.
"""
