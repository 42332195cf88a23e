"""The command line: `app` holds what the commands share, the other modules the commands."""

from kernel_agent.cli import records as records
from kernel_agent.cli import running as running
from kernel_agent.cli.app import app as app
from kernel_agent.cli.app import main as main
