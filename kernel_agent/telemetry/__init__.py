"""A run as OpenTelemetry spans, by the semantic conventions for generative AI."""

from __future__ import annotations

from kernel_agent.telemetry.listener import Telemetry as Telemetry
from kernel_agent.telemetry.listener import telemetry_listener as telemetry_listener
