"""A broker besieged: many, slow, broken and hostile ones, and what honest clients notice of it."""
