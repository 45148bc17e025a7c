-- Times are microseconds since 1970 in UTC; booleans are 0 or 1; ids are text.

CREATE TABLE teams (
    id          TEXT PRIMARY KEY,
    slug        TEXT NOT NULL UNIQUE,
    name        TEXT NOT NULL,
    is_default  INTEGER NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One team at most is the default one.
CREATE UNIQUE INDEX teams_default ON teams (is_default) WHERE is_default = 1;

-- The key itself is shown once and never stored.
CREATE TABLE api_keys (
    id            TEXT PRIMARY KEY,
    team_id       TEXT NOT NULL REFERENCES teams (id) ON DELETE CASCADE,
    name          TEXT NOT NULL,
    hash          BLOB NOT NULL UNIQUE, -- SHA-256 of the decoded key
    mask_prefix   TEXT NOT NULL,
    value_length  INTEGER NOT NULL,
    mask_first    TEXT NOT NULL,
    mask_last     TEXT NOT NULL,
    created_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE templates (
    id               TEXT PRIMARY KEY,
    team_id          TEXT NOT NULL REFERENCES teams (id) ON DELETE CASCADE,
    public           INTEGER NOT NULL,
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL,
    spawn_count      INTEGER NOT NULL DEFAULT 0,
    last_spawned_at  INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX templates_of_team ON templates (team_id, created_at, id);

-- The empty namespace holds the names that every team sees.
CREATE TABLE template_names (
    namespace    TEXT NOT NULL,
    name         TEXT NOT NULL,
    template_id  TEXT NOT NULL REFERENCES templates (id) ON DELETE CASCADE,
    PRIMARY KEY (namespace, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX names_of_template ON template_names (template_id);

CREATE TABLE builds (
    id             TEXT PRIMARY KEY,
    template_id    TEXT NOT NULL REFERENCES templates (id) ON DELETE CASCADE,
    status         TEXT NOT NULL,
    layers         TEXT NOT NULL, -- JSON array of digests, lowest first
    vcpus          INTEGER NOT NULL,
    memory_mib     INTEGER NOT NULL,
    disk_mib       INTEGER NOT NULL,
    pids           INTEGER NOT NULL,
    agent_version  TEXT NOT NULL,
    default_user   TEXT NOT NULL,
    default_dir    TEXT,
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL,
    finished_at    INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX builds_of_template ON builds (template_id, created_at, id);

CREATE TABLE template_tags (
    template_id  TEXT NOT NULL REFERENCES templates (id) ON DELETE CASCADE,
    tag          TEXT NOT NULL,
    build_id     TEXT NOT NULL REFERENCES builds (id) ON DELETE CASCADE,
    assigned_at  INTEGER NOT NULL,
    PRIMARY KEY (template_id, tag)
) STRICT, WITHOUT ROWID;

-- What should exist. The environment given at create is not here: it lives in the guest.
CREATE TABLE sandboxes (
    id            TEXT PRIMARY KEY,
    team_id       TEXT NOT NULL REFERENCES teams (id),
    template_id   TEXT NOT NULL,
    build_id      TEXT NOT NULL,
    alias         TEXT,
    vcpus         INTEGER NOT NULL,
    memory_mib    INTEGER NOT NULL,
    disk_mib      INTEGER NOT NULL,
    pids          INTEGER NOT NULL,
    metadata      TEXT NOT NULL, -- JSON object of texts
    secured       INTEGER NOT NULL,
    internet      INTEGER, -- as the caller said it; absent when not said
    timeout_secs  INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    ending        TEXT -- why it shall end; absent while it shall run
) STRICT, WITHOUT ROWID;

-- What was seen: the run of a sandbox, from the end of its start.
CREATE TABLE runs (
    sandbox_id     TEXT PRIMARY KEY REFERENCES sandboxes (id) ON DELETE CASCADE,
    run_id         TEXT NOT NULL,
    node_id        TEXT NOT NULL,
    address        TEXT NOT NULL,
    agent_version  TEXT NOT NULL,
    started_at     INTEGER NOT NULL,
    deadline       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX runs_by_start ON runs (started_at, sandbox_id);
