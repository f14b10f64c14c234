"""Plans a fleet: how many instances of each pool a traffic needs, by formula and by simulation."""
