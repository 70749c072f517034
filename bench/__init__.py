"""The measuring instrument: time and memory of mixers against the number of frames.  An application, not an API."""

import logging

# The hint of `attn` to use `flash`: benchmarks measure both on purpose.
logging.getLogger("temporal_zoo.mixers").setLevel(logging.ERROR)
# Other packages of this name exist; `zoo` looks for this mark before it runs a command from here.
TEMPORAL_ZOO = True
