"""The child process: one implementation, a pipe, a clock, the inner loop of the duel.

These files need only the standard library, torch and numpy, and of this project only `spec` and `inputs`.
"""
