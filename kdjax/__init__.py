"""kdjax: small vision networks, better than their size, in JAX and Flax."""

__version__ = "0.1.0"
