"""The memorisation probe: a model goes in, what it knows by heart comes out."""
