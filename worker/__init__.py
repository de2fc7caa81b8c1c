"""What runs: every effect of unsubd. `worker` imports `handlers`, never the reverse."""
