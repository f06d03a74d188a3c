"""The loops, and what keeps them safe."""
