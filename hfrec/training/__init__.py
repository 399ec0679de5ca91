"""What is added to a stock `Trainer`: L2-SP, freezing, layer-wise learning rates, and the arguments of the commands."""
