"""What the GPU instances cost, by AWS's price list: on demand, without taxes, discounts and everything else.

The price list is served from a few regions for all others; where it does not answer, the price is unknown.
"""

import json
from collections.abc import Iterator
from typing import Any

from inferctl.doctor.preflight import OK, UNKNOWN, Finding, Preflight

HOURS_PER_MONTH = 730


def prices(preflight: Preflight) -> Iterator[Finding]:
    """A line per model, from `scaling.min` to `scaling.max`, and their sum."""
    models = preflight.gpu_models
    types = {model.gpu.instance_type for model in models}
    hourly = {instance: _hourly(preflight, instance) for instance in sorted(types)}
    for model in models:
        price = hourly[model.gpu.instance_type]
        count = f"{model.scaling.min} to {model.scaling.max} {model.gpu.instance_type}"
        if price is None:
            yield Finding(f"price: {model.name}", UNKNOWN, f"{count}: the price list has no single price")
        else:
            money = _range(model.scaling.min * price, model.scaling.max * price)
            yield Finding(f"price: {model.name}", OK, f"{count}: {money}")
    known = [
        (model.scaling, price) for model in models if (price := hourly[model.gpu.instance_type]) is not None
    ]
    if len(models) > 1 and len(known) == len(models):
        low, high = (sum(getattr(s, end) * price for s, price in known) for end in ("min", "max"))
        yield Finding("price: all GPUs", OK, _range(low, high))


def _range(low: float, high: float) -> str:
    month = HOURS_PER_MONTH
    return f"{low:,.2f} to {high:,.2f} USD an hour, {low * month:,.0f} to {high * month:,.0f} a month"


def _hourly(preflight: Preflight, instance: str) -> float | None:
    """USD per instance and hour of hosting, on demand; None if there is not exactly one such price."""
    filters = {
        "regionCode": preflight.environment.region,
        "instanceName": instance,
        "component": "Hosting",
    }
    # China and GovCloud have price lists of their own, or none that is served.
    answer = preflight.client("pricing", "us-east-1").get_products(
        ServiceCode="AmazonSageMaker",
        Filters=[{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in filters.items()],
    )
    found = {price for product in answer["PriceList"] for price in _on_demand(json.loads(product))}
    return found.pop() if len(found) == 1 else None


def _on_demand(product: dict[str, Any]) -> Iterator[float]:
    for term in product["terms"].get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            if dimension["unit"] == "Hrs" and "USD" in dimension["pricePerUnit"]:
                yield float(dimension["pricePerUnit"]["USD"])
