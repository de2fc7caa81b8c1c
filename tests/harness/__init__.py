"""Real servers for the tests: each on loopback, on a port and in a folder of its own, ended by its process id."""
