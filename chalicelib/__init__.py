"""registry-trust: a control plane for the certificates of a private Docker registry."""
