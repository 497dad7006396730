-- Who may do what: the tokens of agencies and operators; and who did what the audit
-- records.

CREATE TABLE tokens (
    -- The public part of the token, 16 hexadecimal digits.
    id           TEXT PRIMARY KEY CHECK (length(id) = 16),
    -- Whose it is: an agency's, or an operator's who has this role.
    agency       INTEGER CHECK (agency BETWEEN 0 AND 4294967295),
    role         TEXT CHECK (role IN ('viewer', 'auditor', 'operator')),
    label        TEXT NOT NULL,
    -- SHA-256 of the whole token, which is stored nowhere.
    digest       BLOB NOT NULL CHECK (length(digest) = 32),
    created_at   TEXT NOT NULL,
    -- NULL: never.
    expires_at   TEXT,
    last_used_at TEXT,
    revoked_at   TEXT,
    CHECK ((agency IS NULL) <> (role IS NULL))
) STRICT, WITHOUT ROWID;

-- A token is revoked, never deleted: the audit names it.
CREATE TRIGGER tokens_are_not_deleted BEFORE DELETE ON tokens
BEGIN SELECT RAISE(ABORT, 'tokens are revoked, not deleted'); END;
CREATE TRIGGER tokens_stay_whose_they_are BEFORE UPDATE OF id, agency, role, digest, created_at ON tokens
BEGIN SELECT RAISE(ABORT, 'a token stays whose it is'); END;
CREATE TRIGGER tokens_stay_revoked BEFORE UPDATE OF revoked_at ON tokens
WHEN OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS NOT OLD.revoked_at
BEGIN SELECT RAISE(ABORT, 'a revoked token stays revoked'); END;

-- The user of the system who ran the program that did it; NULL in rows of earlier versions.
ALTER TABLE audit ADD COLUMN actor TEXT;
