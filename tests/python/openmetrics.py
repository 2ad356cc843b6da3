"""Reads metrics from an address as Prometheus does; prints a line of JSON for each sample."""

import json
import sys
import urllib.request

from prometheus_client.openmetrics.parser import text_string_to_metric_families

with urllib.request.urlopen(sys.argv[1]) as answer:
    kind = answer.headers["content-type"]
    assert kind.startswith("application/openmetrics-text; version=1.0.0"), kind
    text = answer.read().decode()

for family in text_string_to_metric_families(text):
    for sample in family.samples:
        print(json.dumps({"name": sample.name, "labels": sample.labels, "value": sample.value}))
