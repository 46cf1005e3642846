"""What works on this machine, what does not, and why."""
