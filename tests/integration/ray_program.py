"""A program that ranks shards on a real Ray cluster; `test_ray` starts it, because Ray leaves sockets for Python to close.

The argument is one JSON object: `shards`, `out`, `items`, `configs` (a run with each), `connect` (start the cluster here, and
send the catalogue through its object store) and `options` of `RayOptions`. Prints a JSON line for each report or error.
"""

from __future__ import annotations

import json
import sys

from llmrank import Catalog
from llmrank.errors import LLMRankError
from llmrank.scale.engines import RayOptions, rank_shards


def main() -> None:
    arguments = json.loads(sys.argv[1])
    catalog = arguments["items"]
    if arguments["connect"]:
        import ray

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        catalog = Catalog.load(catalog)
    for config in arguments["configs"]:
        try:
            for report in rank_shards(
                arguments["shards"],
                arguments["out"],
                config=config,
                catalog=catalog,
                engine="ray",
                ray=RayOptions(**arguments["options"]),
            ):
                told = {"name": report.source.name, "outcome": report.outcome, "attempts": report.attempts}
                print(json.dumps(told | {"error": str(report.error)}), flush=True)
        except LLMRankError as error:
            print(json.dumps({"raised": type(error).__name__, "error": str(error)}))


if __name__ == "__main__":
    main()
