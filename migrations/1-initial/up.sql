-- What a lottery keeps. The names are meant for people with `sqlite3`: start
-- with the views `agencies` and `results` at the end.
-- Times are UTC, ISO 8601.

-- "sort" in ASCII: by it the program knows its own files from other databases.
PRAGMA application_id = 1936683636;

CREATE TABLE draws (
    id                INTEGER PRIMARY KEY,
    winning_number    INTEGER NOT NULL CHECK (winning_number BETWEEN 0 AND 4294967295),
    -- How many agencies must be done; NULL: inferred, all of 1 to the highest seen.
    expected_agencies INTEGER CHECK (expected_agencies >= 1),
    opened_at         TEXT NOT NULL,
    -- NULL while bets are taken. Set once, by the conditional UPDATE that is the draw.
    drawn_at          TEXT,
    bets              INTEGER NOT NULL DEFAULT 0 CHECK (bets >= 0),
    winners           INTEGER NOT NULL DEFAULT 0 CHECK (winners >= 0)
) STRICT;

-- No index and no foreign key here: an index over `number` cuts insertion to a
-- fifth, and a draw reads the table once. `sorteo check` verifies the references.
CREATE TABLE bets (
    id         INTEGER PRIMARY KEY,
    draw_id    INTEGER NOT NULL,
    agency     INTEGER NOT NULL,
    first_name TEXT NOT NULL,
    last_name  TEXT NOT NULL,
    document   TEXT NOT NULL,
    birthdate  TEXT NOT NULL,
    number     INTEGER NOT NULL
) STRICT;

CREATE TRIGGER bets_are_not_changed BEFORE UPDATE ON bets
BEGIN SELECT RAISE(ABORT, 'bets are append-only'); END;
CREATE TRIGGER bets_are_not_deleted BEFORE DELETE ON bets
BEGIN SELECT RAISE(ABORT, 'bets are append-only'); END;

-- One row for every batch stored. Within a draw and an agency, batches in order
-- of id cover the agency's bets in order of id.
CREATE TABLE batches (
    id        INTEGER PRIMARY KEY,
    draw_id   INTEGER NOT NULL REFERENCES draws (id),
    agency    INTEGER NOT NULL CHECK (agency BETWEEN 0 AND 4294967295),
    upload    TEXT,
    first_row INTEGER CHECK (first_row >= 0),
    bet_count INTEGER NOT NULL CHECK (bet_count >= 1),
    -- SHA-256 of the rows, each `first|last|document|birthdate|number` and a line feed.
    digest    BLOB NOT NULL CHECK (length(digest) = 32),
    stored_at TEXT NOT NULL,
    CHECK ((upload IS NULL) = (first_row IS NULL)),
    UNIQUE (draw_id, agency, upload, first_row)
) STRICT;

CREATE TABLE done_agencies (
    draw_id   INTEGER NOT NULL REFERENCES draws (id),
    agency    INTEGER NOT NULL CHECK (agency BETWEEN 0 AND 4294967295),
    bet_count INTEGER NOT NULL CHECK (bet_count >= 0),
    done_at   TEXT NOT NULL,
    "by"      TEXT NOT NULL CHECK ("by" IN ('agency', 'operator')),
    PRIMARY KEY (draw_id, agency)
) STRICT, WITHOUT ROWID;

CREATE TABLE winners (
    draw_id INTEGER NOT NULL REFERENCES draws (id),
    agency  INTEGER NOT NULL,
    bet_id  INTEGER NOT NULL REFERENCES bets (id),
    PRIMARY KEY (draw_id, agency, bet_id)
) STRICT, WITHOUT ROWID;

-- What an operator did, and when.
CREATE TABLE audit (
    id      INTEGER PRIMARY KEY,
    at      TEXT NOT NULL,
    action  TEXT NOT NULL,
    draw_id INTEGER REFERENCES draws (id),
    detail  TEXT NOT NULL
) STRICT;

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;

-- How each draw stands. The draw itself asks this view whether it is `complete`:
-- all expected agencies are done or, where none were told, all of 1 to the
-- highest agency seen, by a bet or by being done.
CREATE VIEW standings AS
WITH seen AS (
    SELECT id AS draw_id,
           max(coalesce((SELECT max(agency) FROM batches WHERE draw_id = draws.id), 0),
               coalesce((SELECT max(agency) FROM done_agencies WHERE draw_id = draws.id), 0)) AS highest
      FROM draws
)
SELECT draws.id AS draw,
       CASE WHEN draws.drawn_at IS NULL THEN 'open' ELSE 'drawn' END AS state,
       (SELECT count(*) FROM done_agencies WHERE draw_id = draws.id) AS done,
       coalesce(draws.expected_agencies, seen.highest) AS expected,
       CASE
           WHEN draws.expected_agencies IS NOT NULL
           THEN (SELECT count(*) FROM done_agencies WHERE draw_id = draws.id) >= draws.expected_agencies
           ELSE seen.highest >= 1
                AND (SELECT count(*) FROM done_agencies
                      WHERE draw_id = draws.id AND agency BETWEEN 1 AND seen.highest) = seen.highest
       END AS complete,
       draws.bets,
       draws.winners,
       draws.winning_number
  FROM draws
  JOIN seen ON seen.draw_id = draws.id;

-- For people: who won.
CREATE VIEW results AS
SELECT winners.draw_id AS draw,
       winners.agency,
       bets.document,
       bets.first_name,
       bets.last_name,
       bets.birthdate,
       bets.number
  FROM winners
  JOIN bets ON bets.id = winners.bet_id
 ORDER BY winners.draw_id, winners.agency, winners.bet_id;

-- For people: how far each agency is.
CREATE VIEW agencies AS
WITH sent AS (
    SELECT draw_id, agency, sum(bet_count) AS bets, count(*) AS batches
      FROM batches
     GROUP BY draw_id, agency
),
seen AS (
    SELECT draw_id, agency FROM sent
    UNION
    SELECT draw_id, agency FROM done_agencies
)
SELECT seen.draw_id AS draw,
       seen.agency,
       coalesce(sent.bets, 0) AS bets,
       coalesce(sent.batches, 0) AS batches,
       CASE WHEN done.agency IS NULL THEN 'betting' ELSE 'done' END AS state
  FROM seen
  LEFT JOIN sent USING (draw_id, agency)
  LEFT JOIN done_agencies AS done USING (draw_id, agency)
 ORDER BY seen.draw_id, seen.agency;
