"""``/metrics``, read as Prometheus reads it: what is documented is there, and rises by what was asked."""

import re
import time
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

BODY: dict[str, Any] = {"model": "familiar", "prompt": "Once upon a time", "temperature": 0, "max_tokens": 7}
ROUTE = "/v1/completions"


def scrape(live: Any) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by its name and labels."""
    response = live.http.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(response.text))
    assert all(family.documentation and family.type != "unknown" for family in families)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.fixture
def quiet(live: Any) -> Any:
    """The service once it makes no reply: one that an earlier test left may still be counted."""
    end = time.monotonic() + 60
    while scrape(live)["familiar_requests_running", frozenset()]:
        assert time.monotonic() < end
        time.sleep(0.01)
    return live


def risen(live: Any, *requests: Any) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What requests add to each sample, without those of the scrapes."""
    before = scrape(live)
    for request in requests:
        request()
    after = scrape(live)
    return {key: after[key] - before.get(key, 0) for key in after}


def test_tokens_are_counted(quiet: Any, endless: dict[str, float]) -> None:
    body = {**BODY, "prompt": "A prompt that nobody has sent before, of many words", "logit_bias": endless}
    usages: list[dict[str, Any]] = []

    def ask() -> None:
        usages.append(quiet.http.post(ROUTE, json=body).json()["usage"])

    added = {name: value for (name, labels), value in risen(quiet, ask, ask).items() if not labels}
    prompt_tokens = usages[0]["prompt_tokens"]
    assert added["familiar_prompt_tokens_total"] == 2 * prompt_tokens
    assert added["familiar_completion_tokens_total"] == 14
    cached = [usage["prompt_tokens_details"]["cached_tokens"] for usage in usages]
    assert cached == [0, prompt_tokens - 1]
    assert added["familiar_cached_tokens_total"] == sum(cached)
    # the prompt, then one token at a time; the last one is not evaluated
    assert added["familiar_decoded_batches_total"] == 2 * 7
    assert added["familiar_adapter_swaps_total"] == 0


def test_requests_are_counted_by_route_and_status(quiet: Any) -> None:
    def fine() -> None:
        assert quiet.http.post(ROUTE, json=BODY).status_code == 200

    def wrong() -> None:
        assert quiet.http.post(ROUTE, json={**BODY, "top_p": 9}).status_code == 400

    def nowhere() -> None:
        quiet.http.get("/v1/somewhere/else")

    added = risen(quiet, fine, fine, wrong, nowhere)

    def requests(route: str, method: str, status: str) -> float:
        labels = {"route": route, "method": method, "status": status}
        return added["familiar_http_requests_total", frozenset(labels.items())]

    assert requests(ROUTE, "POST", "200") == 2
    assert requests(ROUTE, "POST", "400") == 1
    assert requests("other", "other", "404") == 1
    assert requests("/metrics", "GET", "200") == 1
    for histogram in ("familiar_http_request_seconds", "familiar_http_first_byte_seconds"):
        of_route = frozenset({"route": ROUTE}.items())
        assert added[f"{histogram}_count", of_route] == 3
        assert added[f"{histogram}_sum", of_route] > 0
        assert added[f"{histogram}_bucket", of_route | {("le", "+Inf")}] == 3


def test_the_first_byte_of_a_stream_comes_before_its_last(quiet: Any, endless: dict[str, float]) -> None:
    body = {**BODY, "stream": True, "max_tokens": 300, "logit_bias": endless}
    added = risen(quiet, lambda: quiet.http.post(ROUTE, json=body))
    of_route = frozenset({"route": ROUTE}.items())
    first, whole = (added[f"familiar_http_{name}_seconds_sum", of_route] for name in ("first_byte", "request"))
    assert 0 < first < whole / 2


def test_what_is_running_is_shown(quiet: Any, endless: dict[str, float]) -> None:
    body = {**BODY, "stream": True, "max_tokens": 900, "logit_bias": endless, "n": 3}
    with quiet.http.stream("POST", ROUTE, json=body) as response:
        begun = response.iter_raw()
        next(begun)
        now = scrape(quiet)
    assert now["familiar_requests_running", frozenset()] == 3
    assert now["familiar_requests_waiting", frozenset()] == 0
    assert now["familiar_slots", frozenset()] == 4


def test_every_figure_is_documented(live: Any, api_doc: str) -> None:
    families = {family.name: family.type for family in text_string_to_metric_families(live.http.get("/metrics").text)}
    section = api_doc.split("## Metrics")[1].split("\n## ")[0]
    documented = dict(re.findall(r"^\| `(familiar_\w+)` \| (\w+) \|", section, re.MULTILINE))
    ours = {name: kind for name, kind in families.items() if not name.startswith("process_")}
    assert {name.removesuffix("_total"): kind for name, kind in documented.items()} == ours
