"""One file a command: its options, and the parts that it puts together. Loaded only when it is called."""
