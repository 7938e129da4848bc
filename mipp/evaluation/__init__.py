"""Retrieval accuracy: P@k, mAP, nearest-neighbour error, recall."""
