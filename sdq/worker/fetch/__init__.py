"""Getting a model's files from the links that the server named.

::

    many      all files of a model, several at once
    rate      how quickly they come
    mirrors   one file: its links in order, verified
    links     what a link means
    web       one address, with all the faults it may have
    drive     the page that stands before a large file
    part      what is there already, hashed as it grows
    archive   files out of an archive
    paths     where a file may lie, and which kinds may come
"""
