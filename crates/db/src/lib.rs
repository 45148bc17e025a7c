//! Rows behind one trait: SQLite and PostgreSQL.
