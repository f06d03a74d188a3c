"""What a network, or the representation itself, gets wrong."""
