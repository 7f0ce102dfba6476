"""The attentions that this package offers to the registry, a file each."""
