"""Makes a trained model smaller and faster, and says by measurement whether it is. Knows no task."""
