"""`python -m agentload` is the `agentload` command."""

from agentload.cli import main

main()
