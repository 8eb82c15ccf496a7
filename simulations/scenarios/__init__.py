"""What scenarios are, how they are read, and those that come with Gary."""
