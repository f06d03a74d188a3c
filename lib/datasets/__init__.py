"""A frame -> tensors. Import the modules themselves: loader workers should load no more than they need."""
