"""Two builds compared on one machine, and figures kept over time."""
