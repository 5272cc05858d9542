"""The worker: takes jobs from Redis, draws them, sends them back. `app.run` puts it together."""
