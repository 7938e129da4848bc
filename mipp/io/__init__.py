"""Reading images, vectors and labels; every wrong file ends in a typed error that names it."""
