"""Pure decisions: no await, no clock, no IO. `now` and `rng` come in as arguments, frozen results go out."""
