"""What servers say among themselves: comparison, ranking, range certificates on secret shares."""
