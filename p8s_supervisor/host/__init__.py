"""What runs on the host: the `p8s` command and what the pytest plugin stands on; not in the node."""
