//! How a guest is run: gVisor, and a fake that passes the same suite.
