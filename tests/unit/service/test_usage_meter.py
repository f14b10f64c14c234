import pytest
from msgspec import structs
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from extproc.budget.estimate import Basis, Budget
from extproc.budget.values import Asked, Measure
from extproc.request.reader import Endpoint
from extproc.response.reader import Finish, Usage
from extproc.routing.pools import Pool, Reason
from extproc.routing.route import Routed
from extproc.service.usage_meter import UsageMeter
from extproc.stream.decision import Noted

ASKED = Asked("m", "prose", Measure(4), None)
NOTED = Noted.of(Routed("short", Reason.FITS, ASKED, Budget(1, 2, 3, Basis.PRIOR)))
SHORT = Pool("short", 8192, 8192)
USAGE = Usage(7, 5, 0, Finish.STOP)


@pytest.fixture
def reader():
    return InMemoryMetricReader()


@pytest.fixture
def meter(reader):
    yield UsageMeter(reader, models=2)
    reader.shutdown()


def sums(reader):
    """Return the sums by metric and, of the attributes, operation, model and pool."""
    data = reader.get_metrics_data()
    if data is None:
        return {}
    [scope] = data.resource_metrics[0].scope_metrics
    kept = ("gen_ai.operation.name", "gen_ai.request.model", "dualpool.pool")
    return {
        (metric.name.rpartition(".")[2], *(point.attributes[name] for name in kept)): point.value
        for metric in scope.metrics
        for point in metric.data.data_points
    }


def test_an_answer_counts_as_those_that_it_stands_for(meter, reader):
    meter.count(NOTED, SHORT, USAGE)
    meter.count(structs.replace(NOTED, stands_for=20), SHORT, USAGE)
    assert sums(reader) == {
        ("input_tokens", "chat", "m", "short"): 7 * 21,
        ("output_tokens", "chat", "m", "short"): 5 * 21,
    }


def test_operations_have_the_names_of_the_conventions_where_there_are_any(meter, reader):
    for api in Endpoint:
        meter.count(structs.replace(NOTED, api=api), SHORT, USAGE)
    names = {operation for _, operation, *_ in sums(reader)}
    assert names == {"chat", "text_completion", "embeddings", "score", "invocations"}


def test_models_beyond_the_permitted_number_are_one(meter, reader):
    for model in ("a", "b", "c", "d", "a"):
        asked = structs.replace(ASKED, model=model)
        meter.count(structs.replace(NOTED, asked=asked), SHORT, USAGE)
    found = {model: value for (kind, _, model, _), value in sums(reader).items() if kind[0] == "i"}
    assert found == {"a": 14, "b": 7, "(other)": 14}


def test_the_metrics_are_named_and_described(meter, reader):
    meter.count(NOTED, SHORT, USAGE)
    [resource] = reader.get_metrics_data().resource_metrics
    [metric, _] = resource.scope_metrics[0].metrics
    assert (metric.name, metric.unit) == ("gen_ai.client.inference.usage.input_tokens", "{token}")
    assert metric.data.is_monotonic
    [point] = metric.data.data_points
    assert point.attributes["gen_ai.provider.name"] == "vllm"
    assert point.attributes["gen_ai.token.modality"] == "unknown"
    assert resource.resource.attributes["service.name"] == "dualpool"
    assert resource.resource.attributes["service.instance.id"]


def test_without_answers_nothing_is_sent(meter, reader):
    assert sums(reader) == {}
