"""Files, signals, logging, locks, threads and the machine: used by every room, free of torch but environment.py."""
