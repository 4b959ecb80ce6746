"""Tests of RocksMQ."""
