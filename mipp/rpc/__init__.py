"""What clients and servers say to each other: wire format, messages, limits, the description of a deployment."""
