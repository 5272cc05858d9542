"""The pictures: their files, the index of them, those in memory."""
