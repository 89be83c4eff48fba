"""The demo: the story of a certificate, told by real clients on the local cloud."""
