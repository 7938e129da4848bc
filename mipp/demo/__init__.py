"""The main job, from images to hits, in one call."""
