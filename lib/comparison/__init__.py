"""Arms x seeds: plan the runs, run them, compare them."""
