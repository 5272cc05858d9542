"""Kills every part of a whole stack in the middle, and proves that nothing was lost.

``python -m sdq.testing.chaos`` (``make chaos``) runs it on real processes; the seed repeats a
run's plan: which prompts are asked for when, which part is killed when and how. What the
machine makes of it differs from run to run.

======================  =====================================================================
`sdq.testing.chaos.     the plan: orders of clients, kills, from a seed
plan`
``parts``               processes that are started again after a kill: Redis, server, workers
``killer``              carries out the kills
``people``              carries out the orders, as processes: ``sdq generate`` and ``person``
``person``              a client on the SDK that notes each job id it is told
``verdict``             lost, wrong, stored twice, drawn twice: from files and tables at the end
``recovery``            how long it took after each kill
``run``                 all of it in order
======================  =====================================================================
"""
