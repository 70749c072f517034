"""The kernel suite: every backend of every op against its definition and its peers."""
