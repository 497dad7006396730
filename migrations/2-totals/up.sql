-- Running totals by draw and agency, so that no request has to count what is stored;
-- and which agencies a draw expects, where they were named.
-- A total changes in the transaction that changes what it counts; `sorteo check`
-- compares them.

CREATE TABLE agency_totals (
    draw_id           INTEGER NOT NULL REFERENCES draws (id),
    agency            INTEGER NOT NULL CHECK (agency BETWEEN 0 AND 4294967295),
    bets              INTEGER NOT NULL DEFAULT 0 CHECK (bets >= 0),
    batches           INTEGER NOT NULL DEFAULT 0 CHECK (batches >= 0),
    -- Winning bets, and the UTF-8 bytes of their names, documents and birthdates.
    winners           INTEGER NOT NULL DEFAULT 0 CHECK (winners >= 0),
    winner_text_bytes INTEGER NOT NULL DEFAULT 0 CHECK (winner_text_bytes >= 0),
    PRIMARY KEY (draw_id, agency)
) STRICT, WITHOUT ROWID;

INSERT INTO agency_totals (draw_id, agency, bets, batches)
SELECT draw_id, agency, sum(bet_count), count(*) FROM batches GROUP BY draw_id, agency;

INSERT INTO agency_totals (draw_id, agency)
SELECT draw_id, agency FROM done_agencies WHERE true ON CONFLICT DO NOTHING;

UPDATE agency_totals
   SET winners = won.winners, winner_text_bytes = won.text_bytes
  FROM (SELECT winners.draw_id, winners.agency, count(*) AS winners,
               sum(octet_length(first_name) + octet_length(last_name)
                   + octet_length(document) + octet_length(birthdate)) AS text_bytes
          FROM winners JOIN bets ON bets.id = winners.bet_id
         GROUP BY winners.draw_id, winners.agency) AS won
 WHERE won.draw_id = agency_totals.draw_id AND won.agency = agency_totals.agency;

-- The batches as they were, but for their index: one without an upload, which nobody looks
-- up, is not in it, and so does not write it.
CREATE TABLE new_batches (
    id        INTEGER PRIMARY KEY,
    draw_id   INTEGER NOT NULL REFERENCES draws (id),
    agency    INTEGER NOT NULL CHECK (agency BETWEEN 0 AND 4294967295),
    upload    TEXT,
    first_row INTEGER CHECK (first_row >= 0),
    bet_count INTEGER NOT NULL CHECK (bet_count >= 1),
    -- SHA-256 of the rows, each `first|last|document|birthdate|number` and a line feed.
    digest    BLOB NOT NULL CHECK (length(digest) = 32),
    stored_at TEXT NOT NULL,
    CHECK ((upload IS NULL) = (first_row IS NULL))
) STRICT;
INSERT INTO new_batches SELECT * FROM batches;

-- The agencies that a draw expects, where it expects certain ones: ranges that neither
-- overlap nor touch. `draws.expected_agencies` is how many they are together.
CREATE TABLE expected_ranges (
    draw_id INTEGER NOT NULL REFERENCES draws (id),
    first   INTEGER NOT NULL CHECK (first BETWEEN 0 AND 4294967295),
    last    INTEGER NOT NULL CHECK (last BETWEEN first AND 4294967295),
    PRIMARY KEY (draw_id, first)
) STRICT, WITHOUT ROWID;

-- Views do not survive a change of their tables.
DROP VIEW standings;
DROP VIEW agencies;

DROP TABLE batches;
ALTER TABLE new_batches RENAME TO batches;
CREATE UNIQUE INDEX batches_by_upload ON batches (draw_id, agency, upload, first_row) WHERE upload IS NOT NULL;

-- Agencies that sent a bet or are done.
ALTER TABLE draws ADD COLUMN agencies INTEGER NOT NULL DEFAULT 0 CHECK (agencies >= 0);
-- Those that are done and expected. See the view `expected_done`.
ALTER TABLE draws ADD COLUMN done INTEGER NOT NULL DEFAULT 0 CHECK (done >= 0);

-- What `draws.done` must be: how many agencies are done, of those that the draw
-- expects. These are the named ones; any, where only their number was given; and all
-- from 1 on, where nothing was given.
CREATE VIEW expected_done AS
SELECT draws.id AS draw,
       (SELECT count(*) FROM done_agencies
         WHERE done_agencies.draw_id = draws.id
           AND CASE
               WHEN EXISTS (SELECT 1 FROM expected_ranges WHERE draw_id = draws.id)
               THEN EXISTS (SELECT 1 FROM expected_ranges
                             WHERE draw_id = draws.id AND done_agencies.agency BETWEEN first AND last)
               ELSE draws.expected_agencies IS NOT NULL OR done_agencies.agency >= 1
               END) AS done
  FROM draws;

UPDATE draws
   SET agencies = (SELECT count(*) FROM agency_totals WHERE draw_id = draws.id),
       done = (SELECT done FROM expected_done WHERE draw = draws.id);

-- The status of each draw. The draw itself asks this view whether it is `complete`: as
-- many agencies are done as it expects or, where no number was given, all from 1 to
-- the highest agency seen, by a bet or by being done.
CREATE VIEW standings AS
WITH expecting AS (
    SELECT id AS draw_id,
           coalesce(expected_agencies,
                    (SELECT max(agency) FROM agency_totals WHERE draw_id = draws.id), 0) AS expected
      FROM draws
)
SELECT draws.id AS draw,
       CASE WHEN draws.drawn_at IS NULL THEN 'open' ELSE 'drawn' END AS state,
       draws.done,
       expecting.expected,
       expecting.expected >= 1 AND draws.done >= expecting.expected AS complete,
       draws.bets,
       draws.winners,
       draws.winning_number
  FROM draws
  JOIN expecting ON expecting.draw_id = draws.id;

-- For people: how far each agency is.
CREATE VIEW agencies AS
SELECT agency_totals.draw_id AS draw,
       agency_totals.agency,
       agency_totals.bets,
       agency_totals.batches,
       CASE WHEN done_agencies.agency IS NULL THEN 'betting' ELSE 'done' END AS state
  FROM agency_totals
  LEFT JOIN done_agencies USING (draw_id, agency)
 ORDER BY agency_totals.draw_id, agency_totals.agency;
