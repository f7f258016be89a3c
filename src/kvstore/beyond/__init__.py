"""Beyond one group: the same service over engines that shard and replicate by themselves."""
