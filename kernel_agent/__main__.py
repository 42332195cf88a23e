"""`python -m kernel_agent` is the command `kernel-agent`."""

from kernel_agent.cli import main

main()
