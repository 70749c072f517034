"""One file per mixer, with the name of the mixer.  Files with a leading underscore are shared parts."""
