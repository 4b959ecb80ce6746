"""Tests and pictures for whoever runs a broker."""
