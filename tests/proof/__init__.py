"""What is claimed of the broker's dependability, shown anew: `make proof`."""
