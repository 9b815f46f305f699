"""What happens inside a spiking network."""
