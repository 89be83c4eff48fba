"""The commands an operator runs: deploy the stack, keep the CAs."""
