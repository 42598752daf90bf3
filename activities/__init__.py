"""Side effects that workflows ask for, one small module each."""
