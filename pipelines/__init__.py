"""From videos to shards: sources, clips, shards, pairs and the puppets. Knows neither torch nor ray."""
