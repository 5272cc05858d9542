"""The families of Stable Diffusion whose checkpoints are one file: what such a file leaves out.

A checkpoint holds weights and no configuration. diffusers would ask a hub for it; here it is
written from published figures, so that a worker needs nobody:

::

    figures     the architectures in figures          families    which one a checkpoint is of
    folder      a configuration folder made of them   vocabulary  the words of CLIP's tokenizer
"""
