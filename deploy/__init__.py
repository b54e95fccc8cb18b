"""What puts the platform on machines."""
