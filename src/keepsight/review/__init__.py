"""What people judge: pictures that wait for a person, and their verdicts."""
