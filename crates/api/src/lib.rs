//! The E2B REST surface.
