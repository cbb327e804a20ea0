"""Position studies: a suite goes in; how good each ranker is by the place at which the relevant candidate stands comes out."""
