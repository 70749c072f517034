"""The measuring instrument: time and memory of mixers against the number of frames.  An application, not an API."""

# Other packages of this name exist; `zoo` looks for this mark before it runs a command from here.
TEMPORAL_ZOO = True
