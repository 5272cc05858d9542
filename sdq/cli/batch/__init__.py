"""``sdq batch``, ``sdq plan`` and ``sdq sweep``: many lines, each with parameters of its own."""
