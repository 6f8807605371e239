"""AWS for Ray's autoscaler, with on-demand machines where there are no spot ones: `provider.module` of cluster.yaml.

Ray 2.60 would ask for the same spot machine again: it passes over a type only where a machine of it never came up.
"""

import logging
from typing import Any

from ray.autoscaler._private.aws.node_provider import AWSNodeProvider  # needs boto3
from ray.autoscaler.node_launch_exception import NodeLaunchException

LOG = logging.getLogger("hdam")

NO_SPOT = ("InsufficientInstanceCapacity", "MaxSpotInstanceCountExceeded", "SpotMaxPriceTooLow", "Unsupported")
"""EC2's words for having no spot machine to give.

Ray tries several zones and passes on the word of the last one alone. A zone that lacks the type of machine says
`Unsupported`, whatever the others have said.
"""
MARKET = "InstanceMarketOptions"


class SpotFirstProvider(AWSNodeProvider):  # type: ignore[misc] # Ray's has no types
    """Starts what `node_config` asks for; a spot machine that is refused, as one on demand."""

    def create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> Any:
        """Called by Ray. Raises NodeLaunchException where there is no machine of either kind."""
        try:
            return super().create_node(node_config, tags, count)
        except NodeLaunchException as refusal:
            if MARKET not in node_config or refusal.category not in NO_SPOT:
                raise
            LOG.warning("%d × %s: no spot (%s), on demand then", count, node_config["InstanceType"], refusal.category)
        on_demand = {name: value for name, value in node_config.items() if name != MARKET}
        return super().create_node(on_demand, tags, count)
