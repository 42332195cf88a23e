"""The spans of a run that have begun and not ended, each below the one before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


class OpenSpans:
    """Starts and ends spans, which have short names here: `"run"`, `"step"`, `"chat"`, ...

    What is said of a span that is not open is passed over. Only with `content` the reasons of
    errors and events are told.
    """

    def __init__(self, trace: Any, tracer: Any, *, content: bool) -> None:
        self._trace = trace
        self._tracer = tracer
        self._content = content
        self._spans: dict[str, Any] = {}  # the outermost first

    def __contains__(self, name: str) -> bool:
        return name in self._spans

    def start(
        self,
        name: str,
        title: str,
        facts: Mapping[str, Any],
        *,
        kind: str = "INTERNAL",
        at: int | None = None,
    ) -> None:
        """Start a span below the innermost one; `at` is in nanoseconds since the epoch."""
        parent = next(reversed(self._spans.values()), None)
        self._spans[name] = self._tracer.start_span(
            title,
            context=None if parent is None else self._trace.set_span_in_context(parent),
            kind=getattr(self._trace.SpanKind, kind),
            attributes=facts,
            start_time=at,
        )

    def set(self, name: str, facts: Mapping[str, Any]) -> None:
        if name in self._spans:
            self._spans[name].set_attributes(facts)

    def add_event(self, name: str, title: str, facts: Mapping[str, Any]) -> None:
        if name in self._spans:
            self._spans[name].add_event(title, facts)

    def happened(self, title: str, facts: Mapping[str, Any], reason: str = "") -> None:
        """Add an event to the innermost span."""
        told = {"kernel_agent.reason": reason} if reason and self._content else {}
        self.add_event(next(reversed(self._spans), ""), title, {**facts, **told})

    def fail(self, name: str, kind: str, message: str) -> None:
        """Mark the span as an error of this `kind`."""
        if name in self._spans:
            self.set(name, {"error.type": kind})
            description = message if self._content else None
            status = self._trace.Status(self._trace.StatusCode.ERROR, description)
            self._spans[name].set_status(status)

    def end(self, name: str, *, at: int | None = None) -> None:
        """End the span; `at` is in nanoseconds since the epoch."""
        if name in self._spans:
            self._spans.pop(name).end(end_time=at)

    def abandon(self, kind: str, message: str = "", *, but: str = "") -> None:
        """End all spans as errors of this `kind`, `but` one."""
        for name in [name for name in reversed(self._spans) if name != but]:
            self.fail(name, kind, message)
            self.end(name)

    @contextmanager
    def beside(self, name: str) -> Iterator[None]:
        """Spans that are started within lie beside the span, which is the innermost one."""
        span = self._spans.pop(name, None)
        try:
            yield
        finally:
            if span is not None:
                self._spans[name] = span
