"""The local cloud: an emulated AWS, and beside it the real registry behind the real nginx."""
