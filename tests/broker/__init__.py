"""Tests of the broker, module by module, and of the engine as a whole."""
