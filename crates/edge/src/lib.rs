//! Sandbox traffic: listen, route, forward, upgrade, error pages.
