"""Half an hour of pods that come and go, and what grows meanwhile: `make soak`."""
