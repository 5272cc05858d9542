-- Times are seconds since 1970; `spec` is the JSON of an ImageSpec.

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- One row a picture; its file is written before the row is committed.
CREATE TABLE pictures (
    key TEXT PRIMARY KEY,
    spec TEXT NOT NULL,
    search_text TEXT NOT NULL, -- the prompt with its case folded
    size_bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL, -- of the file
    draw_seconds REAL NOT NULL,
    created_at REAL NOT NULL,
    last_used_at REAL NOT NULL
) STRICT;

CREATE INDEX pictures_by_creation ON pictures (created_at);
CREATE INDEX pictures_by_use ON pictures (last_used_at);

-- Running totals, kept by triggers: they are right after a crash, and cost no scan.
CREATE TABLE library_totals (
    pictures INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) STRICT;

INSERT INTO library_totals VALUES (0, 0);

CREATE TRIGGER pictures_added AFTER INSERT ON pictures BEGIN
    UPDATE library_totals SET pictures = pictures + 1, bytes = bytes + new.size_bytes;
END;

CREATE TRIGGER pictures_replaced AFTER UPDATE OF size_bytes ON pictures BEGIN
    UPDATE library_totals SET bytes = bytes + new.size_bytes - old.size_bytes;
END;

CREATE TRIGGER pictures_removed AFTER DELETE ON pictures BEGIN
    UPDATE library_totals SET pictures = pictures - 1, bytes = bytes - old.size_bytes;
END;

CREATE TABLE jobs (
    sequence INTEGER PRIMARY KEY, -- the order of arrival, whatever the clock does
    job_id TEXT NOT NULL UNIQUE,
    key TEXT NOT NULL,
    spec TEXT NOT NULL,
    model_id TEXT NOT NULL, -- of the spec, for the indices
    fingerprint TEXT NOT NULL,
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0, -- 0 until it was dispatched once
    keep INTEGER NOT NULL,
    identity TEXT NOT NULL,
    created_at REAL NOT NULL,
    dispatched_at REAL,
    changed_at REAL,
    worker_id TEXT,
    error_code TEXT NOT NULL DEFAULT '',
    error_message TEXT NOT NULL DEFAULT '',
    draw_seconds REAL
) STRICT;

-- One key, one job in flight: the rule itself, not only an index.
CREATE UNIQUE INDEX jobs_one_in_flight ON jobs (key)
    WHERE keep = 1 AND state IN ('queued', 'dispatched', 'running');
CREATE INDEX jobs_in_flight ON jobs (model_id, sequence)
    WHERE state IN ('queued', 'dispatched', 'running');
CREATE INDEX jobs_queued ON jobs (model_id, sequence) WHERE state = 'queued';
CREATE INDEX jobs_by_state ON jobs (state, sequence);
CREATE INDEX jobs_final ON jobs (changed_at)
    WHERE state IN ('succeeded', 'failed', 'cancelled');

CREATE TABLE job_counts (
    model_id TEXT NOT NULL,
    state TEXT NOT NULL,
    jobs INTEGER NOT NULL,
    PRIMARY KEY (model_id, state)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER jobs_added AFTER INSERT ON jobs BEGIN
    INSERT INTO job_counts VALUES (new.model_id, new.state, 1)
        ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;

CREATE TRIGGER jobs_moved AFTER UPDATE OF state ON jobs WHEN new.state <> old.state BEGIN
    UPDATE job_counts SET jobs = jobs - 1 WHERE model_id = old.model_id AND state = old.state;
    INSERT INTO job_counts VALUES (new.model_id, new.state, 1)
        ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;

CREATE TRIGGER jobs_removed AFTER DELETE ON jobs BEGIN
    UPDATE job_counts SET jobs = jobs - 1 WHERE model_id = old.model_id AND state = old.state;
END;
