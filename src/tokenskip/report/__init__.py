"""Numbers -> what a person opens."""
