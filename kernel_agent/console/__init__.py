"""Shows a run in a terminal, as a listener."""

from __future__ import annotations

from kernel_agent.console.view import LiveView as LiveView
