"""A package that trains language models."""

from their_package.losses import token_loss

__all__ = ["token_loss"]
