"""Training and inference: the Trainer, its optimizer and checkpoints, ranks, and detection."""
