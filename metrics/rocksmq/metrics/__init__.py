"""Every metric of RocksMQ."""
