"""Files, signals, logging, processes, the machine: under everything else, and free of torch."""
