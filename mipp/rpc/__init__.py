"""Messages between clients and servers: wire format, messages, limits, the description of a deployment."""
