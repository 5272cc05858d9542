-- Who wants a job, whose turn it is, and how often a job came to nothing.

ALTER TABLE jobs ADD COLUMN failures INTEGER NOT NULL DEFAULT 0; -- attempts that went wrong
ALTER TABLE jobs ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0; -- workers that died drawing it

-- One row for each person that wants a job. A job that nobody wants any more is cancelled.
CREATE TABLE wants (
    sequence INTEGER NOT NULL, -- of the job
    identity TEXT NOT NULL,
    model_id TEXT NOT NULL, -- of the job, for the index
    rank INTEGER NOT NULL, -- of the priority among this person's jobs: 0 high, 1 normal, 2 low
    holders INTEGER NOT NULL, -- requests of this person that want it
    stage INTEGER NOT NULL, -- of the job: 0 queued, 1 dispatched or running, 2 ended
    PRIMARY KEY (sequence, identity)
) STRICT, WITHOUT ROWID;

CREATE INDEX wants_in_line ON wants (model_id, identity, rank, sequence) WHERE stage = 0;
CREATE INDEX wants_by_identity ON wants (identity, stage, sequence);

-- A person's place among those who wait for a model: who was served least recently is next.
CREATE TABLE turns (
    model_id TEXT NOT NULL,
    identity TEXT NOT NULL,
    served INTEGER NOT NULL, -- counts up with every job given to a worker; 0: never served
    waiting INTEGER NOT NULL, -- queued jobs, kept by the triggers below
    PRIMARY KEY (model_id, identity)
) STRICT, WITHOUT ROWID;

CREATE INDEX turns_next ON turns (model_id, served, identity) WHERE waiting > 0;
CREATE INDEX turns_served ON turns (model_id, served);

CREATE TRIGGER wants_added AFTER INSERT ON wants WHEN new.stage = 0 BEGIN
    INSERT INTO turns VALUES (new.model_id, new.identity, 0, 1)
        ON CONFLICT DO UPDATE SET waiting = waiting + 1;
END;

CREATE TRIGGER wants_moved AFTER UPDATE OF stage ON wants
WHEN (new.stage = 0) <> (old.stage = 0) BEGIN
    INSERT INTO turns VALUES (new.model_id, new.identity, 0, 1)
        ON CONFLICT DO UPDATE SET waiting = waiting + (new.stage = 0) - (old.stage = 0);
END;

CREATE TRIGGER wants_removed AFTER DELETE ON wants WHEN old.stage = 0 BEGIN
    UPDATE turns SET waiting = waiting - 1
        WHERE model_id = old.model_id AND identity = old.identity;
END;

CREATE TRIGGER wants_follow AFTER UPDATE OF state ON jobs
WHEN new.state <> old.state AND NOT (old.state = 'dispatched' AND new.state = 'running') BEGIN
    UPDATE wants SET stage = CASE
        WHEN new.state = 'queued' THEN 0 WHEN new.state IN ('dispatched', 'running') THEN 1 ELSE 2
    END WHERE sequence = new.sequence;
END;

CREATE TRIGGER wants_end AFTER DELETE ON jobs BEGIN
    DELETE FROM wants WHERE sequence = old.sequence;
END;

INSERT INTO wants SELECT sequence, identity, model_id, 1, 1, CASE
    WHEN state = 'queued' THEN 0 WHEN state IN ('dispatched', 'running') THEN 1 ELSE 2
END FROM jobs;

-- Jobs that were given to a worker before had their turn; they go first.
DROP INDEX jobs_queued;
CREATE INDEX jobs_again ON jobs (model_id, sequence) WHERE state = 'queued' AND attempt > 0;
