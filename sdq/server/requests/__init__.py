"""What clients ask for: pictures now or later, waiting for jobs, taking them back."""
