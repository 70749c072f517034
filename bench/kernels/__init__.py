"""The kernel suite: compares and times every backend of every op with the reference and with peers."""
