"""Reading images, vectors and labels, and writing files whole. Every bad file ends in a typed error that names it."""
