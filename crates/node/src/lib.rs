//! Everything on one host: one task per sandbox, journal, adoption.
