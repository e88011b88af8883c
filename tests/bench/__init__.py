"""`make bench`: starts, stops and restarts of the real image, measured."""
