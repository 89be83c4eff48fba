"""HTTP: what a request holds, what it may be answered, and how both are described."""
