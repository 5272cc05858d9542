"""What `bench/serving.py` needs: the load, the systems under it, and the peers' servers."""
