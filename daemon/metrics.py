"""``/metrics``: the service's figures as Prometheus reads them.

Nothing here tells one user from another. What is left out: gathering over several processes (there is one).
"""

import time
from collections.abc import Callable, Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from familiar.daemon.engine_stats import EngineStats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_TOTALS = {
    "prompt_tokens": "Tokens of the prompts that were given a slot.",
    "cached_tokens": "Those of them that were in the slot's cache already.",
    "completion_tokens": "Tokens of the replies that have ended.",
    "decoded_batches": "Batches that llama.cpp evaluated.",
    "adapter_swaps": "Times that the adapter was changed.",
}
_NOW = {
    "waiting": ("requests_waiting", "Requests that wait for a slot."),
    "running": ("requests_running", "Replies that are being made."),
    "slots": ("slots", "Replies that can be made at a time."),
    "adapters_loaded": ("adapters_loaded", "Adapters in memory."),
}
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class _Engine(Collector):
    """The engine's own figures, read when asked for."""

    def __init__(self, stats: Callable[[], EngineStats]) -> None:
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        now = vars(self._stats())
        for name, meaning in _TOTALS.items():
            yield CounterMetricFamily(f"familiar_{name}", meaning, value=now[name])
        for name, (label, meaning) in _NOW.items():
            yield GaugeMetricFamily(f"familiar_{label}", meaning, value=now[name])


class Metrics:
    """One service's figures."""

    def __init__(self, stats: Callable[[], EngineStats]) -> None:
        # "_created" would be one more series for every counter, saying when it was first counted.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._registry.register(_Engine(stats))
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "familiar_http_requests",
            "HTTP requests, by route, method and status.",
            ("route", "method", "status"),
            registry=self._registry,
        )
        self._duration = Histogram(
            "familiar_http_request_seconds",
            "From a request's head to its reply's last byte.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._first_byte = Histogram(
            "familiar_http_first_byte_seconds",
            "From a request's head to the first byte of its reply's body; of a stream, its first token.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )

    def gauge(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Add a figure that is read when it is asked for."""
        Gauge(f"familiar_{name}", meaning, registry=self._registry).set_function(read)

    def text(self) -> bytes:
        """Everything in Prometheus' text format, version 0.0.4."""
        return generate_latest(self._registry)

    def observe(self, route: str, method: str, status: int, first_byte_s: float, total_s: float) -> None:
        """Take note of one request."""
        self._requests.labels(route, method, str(status)).inc()
        self._first_byte.labels(route).observe(first_byte_s)
        self._duration.labels(route).observe(total_s)


class Observer:
    """ASGI middleware that times every request."""

    def __init__(self, app: ASGIApp, metrics: Metrics, timer: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._metrics = metrics
        self._timer = timer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = self._timer()
        status, first_byte = 500, 0.0

        async def observed(message: Message) -> None:
            nonlocal status, first_byte
            if message["type"] == "http.response.start":
                status = message["status"]
            elif not first_byte:
                first_byte = self._timer()
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            ended = self._timer()
            # Only routes that there are: a label for each path that somebody tries would never end.
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if route != "other" else "other"
            self._metrics.observe(route, method, status, (first_byte or ended) - begun, ended - begun)
