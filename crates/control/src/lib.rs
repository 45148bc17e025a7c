//! What should exist and where: desired state, placement, expiry, reconciler.
