-- Search in words, filters, and pictures that are pinned: retention passes them over.

-- A picture's number is when it was drawn, in millionths of a second since 1970, or the next one
-- that is free. So the newest are those with the highest numbers, and a page goes on below the last
-- number of the one before. search_text() is ours: see sdq/server/search_text.py.
CREATE TABLE numbered (
    number INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    spec TEXT NOT NULL,
    words TEXT NOT NULL, -- of the prompt
    negative_words TEXT NOT NULL, -- of the negative prompt
    plain_facts TEXT NOT NULL, -- what may be filtered by, as words
    size_bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL, -- of the file
    draw_seconds REAL NOT NULL,
    created_at REAL NOT NULL,
    last_used_at REAL NOT NULL,
    pinned INTEGER NOT NULL DEFAULT 0,
    facts TEXT GENERATED ALWAYS AS (plain_facts || CASE pinned WHEN 0 THEN '' ELSE ' p' END) VIRTUAL
) STRICT;

INSERT INTO numbered (
    number, key, spec, words, negative_words, plain_facts,
    size_bytes, sha256, draw_seconds, created_at, last_used_at
)
SELECT place + max(moment - place) OVER (ORDER BY place ROWS UNBOUNDED PRECEDING), key, spec,
    search_text(CAST(spec AS BLOB), 0), search_text(CAST(spec AS BLOB), 1),
    search_text(CAST(spec AS BLOB), 2), size_bytes, sha256, draw_seconds, created_at, last_used_at
FROM (
    SELECT *, row_number() OVER (ORDER BY moment, key DESC) AS place
    FROM (
        SELECT *, CAST(max(0.0, min(9e9, created_at)) * 1e6 AS INTEGER) AS moment FROM pictures
    )
);

DROP TABLE pictures;
ALTER TABLE numbered RENAME TO pictures;

CREATE INDEX pictures_by_use ON pictures (last_used_at) WHERE pinned = 0;
CREATE INDEX pictures_pinned ON pictures (size_bytes) WHERE pinned = 1;

CREATE TRIGGER pictures_added AFTER INSERT ON pictures BEGIN
    UPDATE library_totals SET pictures = pictures + 1, bytes = bytes + new.size_bytes;
END;

CREATE TRIGGER pictures_replaced AFTER UPDATE OF size_bytes ON pictures BEGIN
    UPDATE library_totals SET bytes = bytes + new.size_bytes - old.size_bytes;
END;

CREATE TRIGGER pictures_removed AFTER DELETE ON pictures BEGIN
    UPDATE library_totals SET pictures = pictures - 1, bytes = bytes - old.size_bytes;
END;

-- Only the index itself: the words are in `pictures`. What it gets is split into words already.
CREATE VIRTUAL TABLE pictures_text USING fts5 (
    words, negative_words, facts, content = 'pictures', content_rowid = 'number', tokenize = 'ascii',
    prefix = '1 2 3'
);

INSERT INTO pictures_text (pictures_text) VALUES ('rebuild');

CREATE TRIGGER pictures_text_added AFTER INSERT ON pictures BEGIN
    INSERT INTO pictures_text (rowid, words, negative_words, facts)
        VALUES (new.number, new.words, new.negative_words, new.facts);
END;

CREATE TRIGGER pictures_text_changed
AFTER UPDATE OF number, words, negative_words, plain_facts, pinned ON pictures BEGIN
    INSERT INTO pictures_text (pictures_text, rowid, words, negative_words, facts)
        VALUES ('delete', old.number, old.words, old.negative_words, old.facts);
    INSERT INTO pictures_text (rowid, words, negative_words, facts)
        VALUES (new.number, new.words, new.negative_words, new.facts);
END;

CREATE TRIGGER pictures_text_removed AFTER DELETE ON pictures BEGIN
    INSERT INTO pictures_text (pictures_text, rowid, words, negative_words, facts)
        VALUES ('delete', old.number, old.words, old.negative_words, old.facts);
END;
