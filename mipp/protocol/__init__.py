"""What roles say to each other: messages, their encoding, and the channel that carries and counts them."""
