"""Error analysis of a network and of the target representation."""
