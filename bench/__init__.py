"""The measuring instrument: time and memory of mixers against the number of frames.  An application, not an API."""
