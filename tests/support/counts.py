"""What a server of vLLM might count of a conversation at /tokenize."""

import json

from extproc.budget.prior import MEASURED
from extproc.budget.weights import TokenWeights
from extproc.request.apis import Endpoint
from extproc.request.reader import read_request
from extproc.routing.ask import ask


def count(body):
    """Return a tenth more tokens than the prior expects."""
    asked = ask(read_request(Endpoint.CHAT, json.dumps(body).encode()))
    return round(TokenWeights(MEASURED).predict(asked.measure).tokens * 1.1)
