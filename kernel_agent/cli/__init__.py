"""The command line: `app` holds what the commands share, the other modules the commands."""

from kernel_agent.cli import comparing as comparing
from kernel_agent.cli import exports as exports
from kernel_agent.cli import going_on as going_on
from kernel_agent.cli import records as records
from kernel_agent.cli import replaying as replaying
from kernel_agent.cli import running as running
from kernel_agent.cli import serving as serving
from kernel_agent.cli.app import app as app
from kernel_agent.cli.app import main as main
