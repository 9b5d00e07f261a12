"""data_loss."""
