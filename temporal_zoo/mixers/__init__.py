"""One file per mixer; the file's name is the mixer's name.  Files with a leading underscore are shared parts."""
