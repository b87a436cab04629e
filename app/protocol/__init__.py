"""The pure protocol core: no await, clock, randomness or network; ids and time are passed in."""
