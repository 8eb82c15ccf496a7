"""Everything that a datacentre does to a cluster."""
