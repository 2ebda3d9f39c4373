"""What ``split`` is made of: the conditions of an AnnData, the draws of each kind, and who goes to which part."""

__all__: list[str] = []
