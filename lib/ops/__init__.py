"""Pure functions of numbers, arrays and tensors. Import the modules themselves: some need torch, some must not."""
