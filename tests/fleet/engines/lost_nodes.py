"""A Ray cluster of several nodes on this machine, which loses nodes while a fleet is scanned. Run by test_cluster.py.

python -m tests.fleet.engines.lost_nodes INPUTS OUT SEED
"""

from __future__ import annotations

import json
import random
import sys
from functools import partial
from pathlib import Path

from ray.cluster_utils import Cluster

from s3lora.fleet.engines.cluster import RayEngine
from s3lora.fleet.run import FleetProgress, fleet_scan


class Losing:
    """Takes nodes away without a warning, and adds new ones, at moments that a seed draws."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster = cluster
        self.random = random.Random(seed)
        self.nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        self.lost = 0
        self.at = self.random.randint(8, 40)

    def __call__(self, progress: FleetProgress) -> None:
        if self.lost < 2 and progress.done >= self.at:
            self.cluster.remove_node(self.nodes.pop(self.random.randrange(len(self.nodes))), allow_graceful=False)
            self.lost += 1
            self.at = progress.done + self.random.randint(8, 60)
            if self.lost == 1:
                self.nodes.append(self.cluster.add_node(num_cpus=1))


def main(inputs: str, out: str, seed: str) -> None:
    # The head has no core: every batch runs on a node that may go.
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    losing = Losing(cluster, int(seed))
    try:
        engine = partial(RayEngine, address=cluster.address)
        summary = fleet_scan([inputs], Path(out), engine=engine, batch=8, watch=losing)
        sys.stdout.write(json.dumps({"lost": losing.lost, "adapters": summary.counts.adapters}))
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
